"""Several control planes of one release: one leads, the others serve Envoys what it published.

changes    from what a follower has to what is published, in bounded messages; and what it makes of them
leader     the leader's side: tells followers, and takes what they tell of their Envoys
follower   the follower's side: serves what the leader tells, and tells it what Envoys say
"""

from trimtab.control.replicas.follower import Follower
from trimtab.control.replicas.leader import Leader

__all__ = ["Follower", "Leader"]
