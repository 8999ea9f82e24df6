"""Random numbers for derivatives by finite differences, which are wrong across the kink of an activation or of |x|."""

NEAR = 1e-4  # finite differences take steps of 1e-6


def away_from_kinks(draw, at):
    """draw(), again until no number of the tensors at(drawn) is near 0; those that are 0 stay so at every step."""
    for _ in range(100):
        drawn = draw()
        if not any(((x != 0) & (x.abs() < NEAR)).any() for x in at(drawn)):
            return drawn
    raise AssertionError("each of 100 draws has a number near a kink")
