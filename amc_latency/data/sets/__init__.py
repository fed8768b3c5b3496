"""Where labelled images come from: known sets, folders of photos, functions of the user's own."""
