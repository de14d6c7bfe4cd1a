"""What the systems share. A system imports core, never another system."""
