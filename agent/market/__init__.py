"""From facts to one trusted picture of a market: order books without gaps, and only sources that deserve trust."""
