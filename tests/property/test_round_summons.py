"""Laws of rounds: whatever a miner does meanwhile, who was called answers or is out."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.gpus import Admission
from chutes_core.validator.domain.launches import ClaimedGpu, Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.store.database import Store
from chutes_core.wire.system import ADMISSION_CHUTE_ID

GPUS = ("GPU-1", "GPU-2")
DAY_S = 86_400
_NEXT = {
    LaunchState.REQUESTED: LaunchState.LISTENING,
    LaunchState.LISTENING: LaunchState.CHALLENGED,
}
_VERDICTS = {
    "accepted": Reason.NONE,
    "late": Reason.PROOF_LATE,
    "unreachable": Reason.UNREACHABLE,
    "wrong": Reason.PROOF_WRONG,
}
steps = st.one_of(
    st.just(("call",)),
    st.just(("end round",)),
    st.just(("restart",)),
    st.tuples(st.sampled_from(("serve", "attest", "go on", "die")), st.sampled_from(GPUS)),
    st.tuples(st.just("prove"), st.sampled_from(GPUS), st.sampled_from(sorted(_VERDICTS))),
)


class House:
    """A validator's launches and admissions of one miner; time is the number of the step."""

    def __init__(self, store):
        self.store, self.clock = store, ManualClock()
        self.round = frozenset()  # called now
        self.owed = set()  # GPUs that were called and have answered nothing since
        self.number = 0
        self.begin()
        for uuid in GPUS:
            self.admit(uuid)

    def begin(self):
        self.admissions = Admissions(
            store=self.store,
            clock=self.clock,
            limits=AdmissionLimits("admission", "periodic", DAY_S, DAY_S),
            known=dict,
            called_up=lambda _: self.round,
        )

    def admit(self, uuid):
        now_s = self.clock.now_s()
        self.store.gpus.admit(
            Admission("5A", uuid, "h100_sxm", "h100_sxm", "p", "admission", now_s, now_s)
        )

    def admitted(self):
        return {uuid for uuid in GPUS if self.serves(uuid)}

    def serves(self, uuid):
        try:
            self.admissions.require("5A", [uuid])
        except Conflict:
            return False
        return True

    def launch_of(self, uuid):
        launch_id = self.store.launches.busy_gpus("5A").get(uuid)
        return None if launch_id is None else self.store.launches.get(launch_id)

    def call(self):
        if not self.round:
            self.round = self.admissions.idle("5A")
            self.admissions.summonses.call({"5A": self.round})
            self.owed |= self.round

    def end_round(self):
        self.admissions.summonses.end({})
        self.round = frozenset()

    def restart(self):
        """A round under way is forgotten, and every launch before its proof ends."""
        self.owed -= {
            uuid for uuid in self.owed if uuid in self.round or self.launch_of(uuid) is not None
        }
        self.round = frozenset()
        for launch in self.store.launches.open():
            self.end(launch, Reason.VALIDATOR_RESTARTED)
        self.begin()
        self.admissions.summonses.abandon()

    def take(self, uuid, chute_id):
        if self.launch_of(uuid) is not None:
            return
        if chute_id != ADMISSION_CHUTE_ID:
            try:
                self.admissions.check_called("5A", [uuid])
                self.admissions.require("5A", [uuid])
            except Conflict:
                return
        self.number += 1
        launch = Launch(
            launch_id=f"l{self.number}",
            chute_id=chute_id,
            version="1",
            image_id="i",
            miner_hotkey="5A",
            miner_coldkey="5Cold",
            registered_at_block=1,
            node_id="node",
            gpu_uuids=(uuid,),
            gpu_class="h100_sxm",
            relay_host="127.0.0.1",
            relay_port=1,
            profile="periodic",
            stand_in=True,
            requested_at_s=0,
            deadline_s=1,
            challenged=(ClaimedGpu(uuid, 0, "h100_sxm", True),),
        )
        self.store.launches.insert(launch, b"key", b"ticket")

    def go_on(self, uuid):
        launch = self.launch_of(uuid)
        if launch is not None and launch.state in _NEXT:
            self.store.launches.advance(launch.launch_id, launch.state, _NEXT[launch.state])

    def die(self, uuid):
        launch = self.launch_of(uuid)
        if launch is not None:
            self.end(launch, Reason.MINER_ENDED)

    def end(self, launch, reason):
        self.store.launches.advance(launch.launch_id, launch.state, LaunchState.GONE, reason=reason)

    def prove(self, uuid, kind):
        launch = self.launch_of(uuid)
        if launch is None or launch.state is not LaunchState.CHALLENGED:
            return
        reason = _VERDICTS[kind]
        verdict = GpuVerdict(uuid, "h100_sxm", not reason.value, reason, 1, 2, 3, 4)
        commitment = "" if kind == "unreachable" else "c"
        now_s = self.clock.now_s()
        proof = Proof(
            "p", launch.launch_id, "5A", "periodic", "node", True, now_s, 1, (verdict,),
            commitment, "s",
        )  # fmt: skip
        self.admissions.judged(launch, proof)
        if kind == "wrong":
            assert not self.serves(uuid)
        if kind in ("accepted", "late"):
            self.owed.discard(uuid)
        if kind == "accepted":
            self.store.launches.advance(
                launch.launch_id, LaunchState.CHALLENGED, LaunchState.VERIFIED, proof_id="p"
            )
        else:
            self.end(launch, reason)


@given(st.lists(steps, max_size=40))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_who_was_called_and_answered_nothing_is_never_admitted_without_a_launch_under_way(moves):
    """Chutes, attestations, deaths, silence and restarts in any order: no way around a round."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "v.sqlite")
        try:
            house = House(store)
            acts = {
                "call": house.call,
                "end round": house.end_round,
                "restart": house.restart,
                "serve": lambda uuid: house.take(uuid, "chute"),
                "attest": lambda uuid: house.take(uuid, ADMISSION_CHUTE_ID),
                "go on": house.go_on,
                "die": house.die,
                "prove": house.prove,
            }
            for name, *arguments in moves:
                acts[name](*arguments)
                under_way = {uuid for uuid in GPUS if house.launch_of(uuid) is not None}
                assert not (house.owed - house.round - under_way) & house.admitted()
        finally:
            store.close()


@given(st.lists(st.sampled_from(("call", "end round", "come")), max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_who_comes_to_every_round_and_is_right_is_always_admitted(moves):
    """An honest miner loses nothing, however rounds follow each other."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "v.sqlite")
        try:
            house = House(store)
            for move in moves:
                if move == "call":
                    house.call()
                if move == "end round" and not house.owed:
                    house.end_round()
                if move == "come":
                    for uuid in sorted(house.owed):
                        house.take(uuid, ADMISSION_CHUTE_ID)
                        house.go_on(uuid)
                        house.go_on(uuid)
                        house.prove(uuid, "accepted")
                        house.die(uuid)
            house.prove("GPU-1", "accepted")
            assert house.admitted() == set(GPUS)
        finally:
            store.close()
