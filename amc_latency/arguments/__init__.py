"""What programs and command lines give: settings of dataclasses, their types and rules, and what goes by a name."""
