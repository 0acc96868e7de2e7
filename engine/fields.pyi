"""Whether a row of fields has the types and the ranges that it should.  Immutable; any thread."""

class Fields:
    """What the fields of one kind of row must be."""

    def __init__(self, types: tuple[type, ...], ranges: dict[int, tuple[int, int]]) -> None:
        """types: the exact type of each field, at most 32; ranges: least and greatest value of the
        fields that are numbers, by their place.  Raises ValueError, OverflowError beyond 64 bits.
        """

    def fit(self, row: object) -> bool:
        """Whether `row` is a tuple of just these types, with each number in its range."""
