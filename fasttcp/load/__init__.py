"""Load: streams of segments made up, scenarios, what drives them and what comes out."""
