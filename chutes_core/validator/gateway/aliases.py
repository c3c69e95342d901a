"""Calls by an alias: of its chutes the first that can answer does.

Path: front -> here -> forward. What a caller may call of them is admitted one by one, as if they
had named it. Invariants: a call is charged once, by the rate of the chute that answered; its hold
covers the dearest; before the first byte of an answer the next chute is asked, and after it none.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chutes_core.base.errors import ChutesError, Forbidden, NotFound
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.admission import Admitted, admit, admit_to, alias_of, no_chute
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.holds import Hold
from chutes_core.validator.gateway.naming import model_spans, renamed
from chutes_core.validator.gateway.target import Target
from chutes_core.validator.gateway.usage import tail_for

Encode = Callable[[Admitted, bytes], bytes]
"""Returns the payload of the CALL frame of a call with this body."""


@dataclass(frozen=True)
class Choices:
    """The calls that may answer a request, in their order; one where it names a chute."""

    calls: tuple[Admitted, ...]
    aliased: bool

    @property
    def rate(self) -> Rate:
        """Return the rate whose hold covers each of them."""
        return max((one.chute.rate for one in self.calls), key=lambda rate: rate.hold_rao)


def admit_all(
    snapshot: Snapshot, key: ApiKey, target: Target, *, method: str, model: str | None = None
) -> Choices:
    """Return what may answer a request: a chute, or those of an alias that its caller may call.

    A chute of an alias that the caller may not see is passed over without a word.

    Raises:
        NotFound: ``chute_not_found`` or ``cord_not_found``.
        Forbidden: ``scope``.
    """
    alias = alias_of(snapshot, key, target, model)
    if alias is None:
        return Choices((admit(snapshot, key, target, method=method, model=model),), aliased=False)
    calls: list[Admitted] = []
    refusal: ChutesError = no_chute()
    for chute_id in alias.chute_ids:
        chute = snapshot.chutes.get(chute_id)
        try:
            calls.append(admit_to(snapshot, key, chute, target, method=method))
        except (NotFound, Forbidden) as error:
            if refusal.code == "chute_not_found":
                refusal = error
    if not calls:
        raise refusal
    return Choices(tuple(calls), aliased=True)


class AliasCall(Call):
    """A call that any of several chutes may answer; `admitted` is that of the one asked last.

    Args:
        invocation_id: of the one call that it is, whoever answers.
        choices: in the order in which they are asked.
        body: as its caller sent it.
        hold: covers the dearest.
        encode: says a choice as the payload of its CALL frame.
        by_model: its body names the alias as its model; each chute is sent its own name instead,
            for engines answer to no other. All else stays as it was sent (`naming`).

    Raises:
        Invalid: the body cannot be sent under another name.
    """

    def __init__(
        self,
        invocation_id: str,
        choices: Choices,
        body: bytes,
        hold: Hold,
        *,
        encode: Encode,
        by_model: bool,
    ) -> None:
        super().__init__(invocation_id, choices.calls[0], b"", body, hold)
        self._order = choices.calls
        self._encode = encode
        self._spans = model_spans(body) if by_model else []
        self.aim(choices.calls[0])

    @property
    def choices(self) -> tuple[Admitted, ...]:
        """Return what is asked, the next one first."""
        return self._order

    @property
    def fails_over(self) -> bool:
        """Tell that another chute may still answer when one lets its time pass."""
        return len(self._order) > 1

    @property
    def answered_by(self) -> str:
        """Return the slug of the chute that was asked last."""
        return self.admitted.chute.slug

    def aim(self, admitted: Admitted) -> None:
        """Ask this chute from now on: its rate counts."""
        self.admitted = admitted
        self.hold.cover(admitted.chute.rate)
        if self._spans:
            self.body, self._spans = renamed(self.body, self._spans, admitted.chute.name)
        self.head = self._encode(admitted, self.body)
        self.tail = tail_for(admitted.cord)

    def turned_down(self) -> None:
        """Ask the chute behind the one that gave no answer first, and that one last."""
        at = self._order.index(self.admitted) + 1
        self._order = self._order[at:] + self._order[:at]
