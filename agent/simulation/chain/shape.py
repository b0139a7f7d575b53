"""How deep the sandbox's pools are and where their price begins, as plain numbers."""

# Where each pool starts beside that price, in basis points. Within its own fee nobody can trade a pool into line, so on a
# public chain pools lie scattered inside that band, some dearer and some cheaper than the exchange; so they do here.
START_OFFSET_BPS = {"v2-3000": 27, "v3-500": 4, "v3-3000": -27, "v3-10000": 90, "v4-500": 3, "v4-3000": 26}
V2_WETH = 2_800 * 10**18  # with as much USDT: about 15M dollars
# ETH that moves the price by 10 bps at the start price.
DEPTH_ETH = {"v3-500": 6, "v3-3000": 8, "v3-10000": 3, "v4-500": 4, "v4-3000": 5}
# (half width, shift of the centre, share of the depth in percent); widths and shifts in hundredths of a percent (ticks).
POSITIONS = (
    (3600, 0, 30),
    (2400, 0, 14),
    (1800, 60, 11),
    (1200, -60, 10),
    (840, 120, 8),
    (600, -120, 7),
    (420, 60, 6),
    (300, -60, 5),
    (240, 60, 4),
    (180, 0, 3),
    (120, 0, 1),
    (60, 0, 1),
)
