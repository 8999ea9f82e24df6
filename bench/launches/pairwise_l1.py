"""The launches of pairwise_l1; sizes are the rows, the others (None: the rows meet themselves), kernels, dimensions."""

# a tile holds all dimensions up to a limit and parts of them beyond; the batch chooses nothing
SIZES = [(256, None, 100, 5), (256, 512, 50, 16), (256, None, 20, 40)]
AWKWARD = [(1, None, 1, 1), (33, 65, 3, 5), (3, None, 2, 40), (0, 5, 2, 3)]
# one exponential for each pair of rows; where a tile holds parts of the dimensions, the inner loop goes over these
ELEMENT = {"pull_kernel.*KD=(16|40).*DOUBLE=True": None, "": "MUFU.EX2"}
NARROW = {"sum_kernel": "it stores one sum a row, after the loop"}


def calls(t, rows, others, kernels, dimensions):
    m = t(rows, kernels, dimensions)
    other = None if others is None else t(others, kernels, dimensions)
    g = t(rows, kernels)
    yield "pairwise_l1", (m, other)
    yield "pairwise_l1_backward", (g, m, other)
    yield (
        "pairwise_l1_double_backward",
        (t(rows, kernels, dimensions), None if others is None else t(others, kernels, dimensions), g, m, other),
    )
