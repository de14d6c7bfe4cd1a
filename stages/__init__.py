"""One thin command a stage: `stages/<system>/<step>.py` is the DVC stage `<system>-<step>`."""
