"""What the kernel counts of tries against the walls, from recorded output."""

import subprocess

from chutes_core.engine.attempts import dropped_packets, limits_hit

MARK = "chutes 5HQEUa5ZmJEUVBRu"
# As iptables-save 1.8.9 printed it on a host with two miners.
SAVED = f"""*filter
:INPUT ACCEPT [2043:288311]
[7:420] -A INPUT -i ct1 -m conntrack ! --ctstate RELATED,ESTABLISHED -m comment --comment "{MARK}" -j DROP
[5:300] -A INPUT -i ct2 -m conntrack ! --ctstate RELATED,ESTABLISHED -m comment --comment "{MARK}" -j DROP
[9:540] -A INPUT -i ct9 -m comment --comment "chutes 5Fsomebodyelse000" -j DROP
[3:180] -A DOCKER-USER -d 10.0.0.0/8 -i ct2 -m comment --comment "{MARK}" -j DROP
[8:480] -A DOCKER-USER -d 1.1.1.1/32 -i ct2 -p udp -m comment --comment "{MARK}" -j RETURN
COMMIT
"""  # noqa: E501 - as it is


def answers(**texts):
    def run(command):
        text = texts.get(command[0].replace("-", "_"))
        if text is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, text, "")

    return run


def test_packets_are_counted_by_where_they_were_to_go():
    """Drops of this miner's rules, both bridges together; another miner's and passes are not."""
    run = answers(iptables_save=SAVED, ip6tables_save=SAVED)
    assert dropped_packets(MARK, run) == {"to_host": 24, "to_private": 6}
    assert dropped_packets(MARK, answers(iptables_save=SAVED)) == {"to_host": 12, "to_private": 3}
    assert dropped_packets(MARK, answers()) == {}


def test_limits_are_read_of_both_kinds_of_control_groups(tmp_path):
    """Version 2 by its events files, version 1 by its counters; what is missing is left out."""
    assert limits_hit("abc", tmp_path) == {}
    new = tmp_path / "system.slice" / "docker-abc.scope"
    new.mkdir(parents=True)
    (new / "pids.events").write_text("max 4\n")
    (new / "memory.events").write_text("low 0\nhigh 0\nmax 20\noom 1\noom_kill 1\n")
    assert limits_hit("abc", tmp_path) == {"processes": 4, "memory": 21}
    for kind, name, text in (("pids", "pids.events", "max 2\n"), ("memory", "memory.failcnt", "9")):
        folder = tmp_path / kind / "docker" / "old"
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    assert limits_hit("old", tmp_path) == {"processes": 2, "memory": 9}
