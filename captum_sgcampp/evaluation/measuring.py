"""From the images of a part to its rows. An image that fails is left out, with the reason in its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from captum_sgcampp.evaluation.cases import Case, Cases
from captum_sgcampp.evaluation.contents import content, stamps
from captum_sgcampp.evaluation.items import Item
from captum_sgcampp.evaluation.measures import Bench, Shared, Trial, measure
from captum_sgcampp.evaluation.methods import Method
from captum_sgcampp.evaluation.rows import Record
from captum_sgcampp.vision.failures import is_lasting, reason

Partners = tuple[int, int, int] | None


@dataclass
class Measurer:
    """Reads, explains and measures images.

    Attributes:
        bench: the model.
        cases, items: the images.
        partners: for each item the numbers of three others for a mosaic.
        trials: every layer with every method.
        strict: whether an image that fails stops the run.
        worked: whether a map has been measured. Before the first one a failure is that of the model or of a setting.
    """

    bench: Bench
    cases: Cases
    items: Sequence[Item]
    partners: Sequence[Partners]
    trials: Sequence[tuple[str, Method]]
    strict: bool
    worked: bool = False

    def records(self, index: int) -> list[Record]:
        """The rows of one image, one per layer and method."""
        item = self.items[index]
        files = self.cases.files(item)
        blank = Record(item.name, "", "", stamp=stamps(files), content=content(files))
        try:
            case = self.cases.load(item)
        except Exception as error:  # whatever decoders and the user's code raise
            self.cases.check()
            if self.strict or is_lasting(error):
                raise
            return [replace(blank, layer=x, method=m.name, error=reason(error)) for x, m in self.trials]
        blank = replace(blank, note=case.note or None)
        shared = Shared(self.bench, case, self._load_partners(index))
        return [self._measured(blank, case, Trial(shared, layer, method)) for layer, method in self.trials]

    def _measured(self, blank: Record, case: Case, trial: Trial) -> Record:
        record = replace(blank, layer=trial.layer, method=trial.method.name)
        try:
            values, confidence = measure(trial), float(trial.shared.confidence)
        except Exception as error:
            if is_lasting(error):
                raise
            if self.strict or not self.worked:
                raise _of_image(error, record) from error
            return replace(record, error=reason(error))
        self.worked = True
        return replace(record, target=case.target, confidence=confidence, values=values)

    def _load_partners(self, index: int) -> Callable[[], list[Tensor]] | None:
        found = self.partners[index]
        if found is None:
            return None
        return lambda: [self.cases.inputs(self.items[other]) for other in found]


def _of_image(error: Exception, record: Record) -> Exception:
    kind = ValueError if isinstance(error, ValueError | TypeError) else RuntimeError
    return kind(f"{record.image}, {record.layer}, {record.method}: {error}")
