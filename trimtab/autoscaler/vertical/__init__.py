"""How many requests one pod may hold: `decide_limit`, each 30 s, from how its pods fared."""
