"""HubbleCLIP: what knows about observations and words."""
