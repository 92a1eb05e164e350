"""The tables of "Compressed Self-Attention for Deep Metric Learning" (Chen et al., AAAI 2020) as they are printed.

A row names the recipe that gives our scores. A row without a recipe is one that the paper cites; a row without the paper's
scores is our own addition, to answer a question that the paper leaves open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

MARKET, DUKE, CUHK03 = "market1501", "dukemtmc", "cuhk03-detected"
LIBERTY, NOTREDAME, YOSEMITE = "brown-liberty", "brown-notredame", "brown-yosemite"
MEAN = ("mean",)  # the metric of a column that averages the others
NAMES = {MARKET: "Market-1501", DUKE: "DukeMTMC-reID", CUHK03: "CUHK03-NP"}

Metric = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: which score it shows, and how."""

    group: str  # the heading above this column and its neighbours
    label: str
    data: str  # what the runs of this column train on, a key of `places.DATA`
    metric: Metric  # the keys that lead to the score in scores.json, or `MEAN`, the mean of the table's other columns
    scale: float = 100.0  # from the unit of scores.json to the paper's
    decimals: int = 1
    printed: bool = True  # whether the paper has this column


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: a model."""

    label: str
    recipe: str | None  # that trains it; None for a row that the paper cites
    scores: Sequence[float | None] = ()  # the paper's, one per printed column, None if it leaves one out
    against: str = ""  # label of the row to compare with, if not the table's baseline

    @property
    def source(self) -> str:
        """Where the row comes from: "paper", "cited" or "ours"."""
        if self.recipe is None:
            return "cited"
        return "paper" if self.scores else "ours"


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper."""

    name: str  # "table1" to "table8", or "figure5"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    baseline: str  # label of the row that the others are compared with; "" if rows are not compared

    @property
    def groups(self) -> list[str]:
        """The headings above the columns, in order."""
        return list(dict.fromkeys(column.group for column in self.columns))

    def with_rows(self, labels: Sequence[str] | None, paper_only: bool) -> "PaperTable":
        """The table with only some of its rows.

        Args:
            labels: of the rows to keep; None for all rows.
            paper_only: whether to leave out the rows that are not in the paper.

        Examples:
            >>> [row.label for row in TABLES["table2"].with_rows(["PCB + CSA, 8 maps"], paper_only=False).rows]
            ['PCB + CSA, 8 maps']
        """
        kept = [row for row in self.rows if not (paper_only and row.source == "ours")]
        return replace(self, rows=[row for row in kept if labels is None or row.label in labels])

    def compared_with(self, row: Row) -> Row | None:
        """The row that a row is compared with; None for the baseline itself, or if that row is not in the table."""
        label = row.against or self.baseline
        if label == row.label:
            return None
        return next((other for other in self.rows if other.label == label), None)

    def paper_score(self, row: Row, column: Column) -> float | None:
        """The paper's score of a row and a column; None if it does not print one."""
        if not row.scores or not column.printed:
            return None
        printed = [other for other in self.columns if other.printed]
        return row.scores[printed.index(column)]

    def main_column(self, group: str) -> Column:
        """The column of a group by which rows are compared: the last one that the paper prints."""
        return [column for column in self.columns if column.group == group and column.printed][-1]


BROWN_GROUP = "trained on, tested on"
RANKS_AND_MAP = {"R-1": "rank1", "R-5": "rank5", "R-10": "rank10", "mAP": "map_trapezoid"}
RANK1_AND_MAP = {"R-1": "rank1", "mAP": "map_trapezoid"}


def _reid_columns(metrics: dict[str, str], datasets: Sequence[str]) -> list[Column]:
    """Columns of metrics on datasets, each dataset with one more column for the step form of mAP, which the paper lacks."""
    columns = []
    for data in datasets:
        group = NAMES[data]
        columns += [Column(group=group, label=label, data=data, metric=(metric,)) for label, metric in metrics.items()]
        columns.append(Column(group=group, label="mAP (step)", data=data, metric=("map_step",), printed=False))
    return columns


def _brown_columns() -> list[Column]:
    names = {LIBERTY: "liberty", NOTREDAME: "notredame", YOSEMITE: "yosemite"}
    pairs = [(NOTREDAME, LIBERTY), (YOSEMITE, LIBERTY), (LIBERTY, NOTREDAME)]
    pairs += [(YOSEMITE, NOTREDAME), (LIBERTY, YOSEMITE), (NOTREDAME, YOSEMITE)]
    columns = [
        Column(
            group=BROWN_GROUP,
            label=f"{names[train][:4]}, {names[test][:4]}",
            data=train,
            metric=("fpr95", names[test]),
            decimals=2,
        )
        for train, test in pairs
    ]
    return [*columns, Column(group=BROWN_GROUP, label="mean", data="", metric=MEAN, decimals=2)]


PCB = Row(label="PCB", recipe="pcb", scores=(92.3, 97.2, 98.2, 77.4, 81.7, 89.7, 91.9, 66.1, 59.7, 77.7, 85.2, 53.2))
TABLE1 = PaperTable(
    name="table1",
    title="Person re-identification with and without compressed self-attention",
    columns=_reid_columns(RANKS_AND_MAP, (MARKET, DUKE, CUHK03)),
    baseline="PCB",
    rows=[
        Row(
            label="HA-CNN (Li, Zhu and Gong 2018)",
            recipe=None,
            scores=(91.2, None, None, 75.7, 80.5, None, None, 63.8, 41.7, None, None, 38.6),
        ),
        Row(
            label="DuATM (Si et al. 2018)",
            recipe=None,
            scores=(91.4, 97.1, None, 76.6, 81.8, 90.1, None, 64.6, None, None, None, None),
        ),
        Row(
            label="Mancs (Wang et al. 2018)",
            recipe=None,
            scores=(93.1, None, None, 82.3, 84.9, None, None, 71.8, 65.5, None, None, 60.5),
        ),
        PCB,
        Row(
            label="PCB + SA",
            recipe="pcb_sa",
            scores=(93.8, 97.7, 98.5, 82.2, 85.3, 92.7, 94.8, 73.4, 65.9, 82.3, 88.4, 62.7),
        ),
        Row(
            label="PCB + CSA",
            recipe="pcb_csa",
            scores=(93.7, 98.2, 98.8, 82.3, 85.5, 92.8, 94.5, 73.5, 67.2, 83.9, 88.9, 63.7),
        ),
        Row(label="PCB-RPP", recipe="rpp", scores=(93.8, 97.5, 98.5, 81.6, 83.3, 90.5, 92.5, 69.2, 62.8, 79.8, 86.8, 56.7)),
        Row(
            label="PCB-RPP + SA",
            recipe="rpp_sa",
            scores=(93.3, 97.5, 98.7, 83.2, 84.9, 92.8, 94.7, 72.9, 66.1, 84.0, 89.0, 64.6),
            against="PCB-RPP",
        ),
        Row(
            label="PCB-RPP + CSA",
            recipe="rpp_csa",
            scores=(93.9, 97.8, 98.8, 83.5, 85.4, 93.1, 94.5, 73.1, 67.4, 83.6, 89.1, 65.0),
            against="PCB-RPP",
        ),
        Row(label="PCB, supervision, no attention", recipe="pcb_supervised"),
        Row(label="PCB, random erasing, no attention", recipe="pcb_erasing"),
        Row(label="PCB + CSA, 1 group: what compression alone costs", recipe="pcb_csa_groups1", against="PCB + SA"),
        Row(label="PCB + CSA, alpha fixed at 1", recipe="pcb_csa_fixed", against="PCB + CSA"),
        Row(label="PCB + efficient attention", recipe="pcb_efficient", against="PCB + CSA"),
        Row(label="PCB + double attention", recipe="pcb_a2", against="PCB + CSA"),
        Row(label="PCB + global context", recipe="pcb_gc", against="PCB + CSA"),
        Row(label="modern PCB", recipe="modern"),
        Row(label="modern PCB + CSA", recipe="modern_csa", against="modern PCB"),
    ],
)
TABLE2 = PaperTable(
    name="table2",
    title="Number of base attention maps in each of two groups",
    columns=_reid_columns(RANK1_AND_MAP, (MARKET, DUKE)),
    baseline="PCB + CSA, 32 maps",
    rows=[
        Row(label="PCB + CSA, 8 maps", recipe="pcb_csa_maps8", scores=(93.6, 82.1, 85.0, 73.2)),
        Row(label="PCB + CSA, 16 maps", recipe="pcb_csa_maps16", scores=(93.6, 82.2, 85.5, 73.4)),
        Row(label="PCB + CSA, 32 maps", recipe="pcb_csa", scores=(93.7, 82.3, 85.5, 73.5)),
        Row(label="PCB + CSA, 64 maps", recipe="pcb_csa_maps64", scores=(93.9, 82.2, 85.3, 73.3)),
    ],
)
TABLE3 = PaperTable(
    name="table3",
    title="Number of groups of 32 base attention maps",
    columns=_reid_columns(RANK1_AND_MAP, (MARKET, DUKE)),
    baseline="PCB + CSA, 1 group",
    rows=[
        Row(label="PCB + CSA, 1 group", recipe="pcb_csa_groups1", scores=(93.6, 81.9, 85.2, 73.1)),
        Row(label="PCB + CSA, 2 groups", recipe="pcb_csa", scores=(93.7, 82.3, 85.5, 73.5)),
        Row(label="PCB + CSA, 4 groups", recipe="pcb_csa_groups4", scores=(93.9, 82.1, 85.6, 73.4)),
        Row(label="PCB + CSA, 8 groups", recipe="pcb_csa_groups8", scores=(93.8, 82.3, 85.5, 73.3)),
    ],
)
TABLE4 = PaperTable(
    name="table4",
    title="Stages of the backbone that attention follows",
    columns=_reid_columns(RANK1_AND_MAP, (MARKET, DUKE)),
    baseline="PCB, none",
    rows=[
        Row(label="PCB, none", recipe="pcb", scores=(92.3, 77.4, 81.7, 66.1)),
        Row(label="PCB + CSA, stage 1", recipe="pcb_csa_stage1", scores=(93.5, 81.6, 84.6, 72.8)),
        Row(label="PCB + CSA, stages 2, 3", recipe="pcb_csa_stages23", scores=(93.3, 81.2, 84.7, 72.6)),
        Row(label="PCB + CSA, stages 1, 2, 3", recipe="pcb_csa", scores=(93.7, 82.3, 85.5, 73.5)),
    ],
)
TABLE5 = PaperTable(
    name="table5",
    title="Deep supervision of the attention",
    columns=_reid_columns(RANK1_AND_MAP, (MARKET, DUKE)),
    baseline="PCB + CSA, no supervision",
    rows=[
        Row(label="PCB + CSA, no supervision", recipe="pcb_csa_unsupervised", scores=(93.5, 81.3, 85.3, 72.8)),
        Row(label="PCB-RPP + CSA, no supervision", recipe="rpp_csa_unsupervised", scores=(93.6, 82.7, 84.9, 72.7)),
        Row(label="PCB + CSA, supervision", recipe="pcb_csa", scores=(93.7, 82.3, 85.5, 73.5)),
        Row(
            label="PCB-RPP + CSA, supervision",
            recipe="rpp_csa",
            scores=(93.9, 83.5, 85.4, 73.1),
            against="PCB-RPP + CSA, no supervision",
        ),
        Row(label="PCB, supervision, no attention", recipe="pcb_supervised"),
    ],
)
TABLE6 = PaperTable(
    name="table6",
    title="Speed and memory (ours: ResNet-50 at 384 x 128, inference and training on this machine)",
    columns=[
        Column(group="per image", label="MB", data="", metric=("megabytes",), scale=1.0, decimals=2),
        Column(group="per image", label="images/s", data="", metric=("inference",), scale=1.0, decimals=2),
        Column(group="relative to PCB", label="memory, %", data="", metric=("memory_ratio",)),
        Column(group="relative to PCB", label="images/s, %", data="", metric=("inference_ratio",)),
        Column(group="relative to PCB", label="training images/s, %", data="", metric=("training_ratio",)),
    ],
    baseline="",
    rows=[
        Row(label="PCB", recipe="PCB", scores=(125.64, 380.24, 100.0, 100.0, None)),
        Row(label="PCB + SA", recipe="PCB + SA", scores=(304.33, 224.30, 242.2, 59.0, None)),
        Row(label="PCB + CSA, 1 group", recipe="PCB + CSA, G = 1", scores=(139.60, 360.90, 111.1, 94.9, None)),
        Row(label="PCB + CSA, 2 groups", recipe="PCB + CSA, G = 2", scores=(142.27, 350.36, 113.2, 92.1, None)),
        Row(label="PCB + CSA, 4 groups", recipe="PCB + CSA, G = 4", scores=(149.02, 335.66, 118.6, 88.3, None)),
        Row(label="PCB + CSA, 8 groups", recipe="PCB + CSA, G = 8", scores=(158.02, 314.80, 125.8, 82.8, None)),
    ],
)
TABLE7 = PaperTable(
    name="table7",
    title="Patch verification on Brown: false positive rate at 95 % recall, lower is better",
    columns=_brown_columns(),
    baseline="HardNet",
    rows=[
        Row(label="HardNet", recipe="brown_hardnet", scores=(1.49, 2.51, 0.53, 0.78, 1.96, 1.84, 1.51)),
        Row(label="HardNet + SA", recipe="brown_hardnet_sa", scores=(1.23, 1.98, 0.40, 0.71, 1.37, 1.06, 1.13)),
        Row(label="HardNet + CSA", recipe="brown_hardnet_csa", scores=(1.23, 1.92, 0.42, 0.73, 1.39, 1.09, 1.13)),
        Row(label="RALNet", recipe="brown_ralnet", scores=(1.30, 2.39, 0.37, 0.67, 1.52, 1.31, 1.26)),
        Row(label="RALNet + SA", recipe="brown_ralnet_sa", scores=(1.23, 1.84, 0.38, 0.66, 1.40, 1.05, 1.09), against="RALNet"),
        Row(
            label="RALNet + CSA",
            recipe="brown_ralnet_csa",
            scores=(1.16, 1.95, 0.40, 0.71, 1.38, 1.02, 1.10),
            against="RALNet",
        ),
    ],
)
TABLE8 = PaperTable(
    name="table8",
    title="HPatches, trained on Liberty",
    columns=[
        Column(group=f"HPatches {task}", label="mAP", data=LIBERTY, metric=("hpatches", task), decimals=2)
        for task in ("verification", "matching", "retrieval")
    ],
    baseline="HardNet",
    rows=[
        Row(label="HardNet", recipe="brown_hardnet", scores=(87.12, 51.37, 69.74)),
        Row(label="HardNet + SA", recipe="brown_hardnet_sa", scores=(87.76, 53.17, 71.45)),
        Row(label="HardNet + CSA", recipe="brown_hardnet_csa", scores=(87.67, 52.66, 71.14)),
        Row(label="RALNet", recipe="brown_ralnet", scores=(87.43, 53.16, 69.70)),
        Row(label="RALNet + SA", recipe="brown_ralnet_sa", scores=(87.85, 52.89, 71.75), against="RALNet"),
        Row(label="RALNet + CSA", recipe="brown_ralnet_csa", scores=(88.11, 52.62, 71.72), against="RALNet"),
    ],
)
FIGURE5 = PaperTable(
    name="figure5", title="", columns=TABLE1.columns, baseline="", rows=[row for row in TABLE1.rows if row.recipe == "pcb_csa"]
)
TABLES = {table.name: table for table in (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7, TABLE8)}
