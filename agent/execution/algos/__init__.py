"""What each algorithm wants to have traded by when. One file for each; `schedule` turns that into slices. Pure."""
