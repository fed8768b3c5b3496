"""Any traceable network as one of plain modules."""
