"""What a run is on disk: its experiment, its folder, its environment; nothing that trains."""
