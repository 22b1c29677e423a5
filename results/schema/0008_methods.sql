-- Tournaments by every model of ratings, under the names that `qlora elo` has for them. Those of the first version
-- left all out but online Elo; what it calls bradley-terry is bt.

DROP VIEW elo_latest;

CREATE TABLE any_tournament(
  tournament_id INTEGER PRIMARY KEY,
  tournament_key BLOB NOT NULL UNIQUE CHECK(length(tournament_key) = 32),
  name TEXT NOT NULL,
  method TEXT NOT NULL CHECK(method IN ('elo', 'bt', 'rao-kupper', 'davidson')),
  params TEXT NOT NULL CHECK(json_valid(params)),
  matches INTEGER NOT NULL,
  invalid INTEGER NOT NULL,
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z')) STRICT;

INSERT INTO any_tournament
  SELECT tournament_id, tournament_key, name, iif(method = 'bradley-terry', 'bt', method), params, matches, invalid,
    created_at FROM tournament;
DROP TABLE tournament;
ALTER TABLE any_tournament RENAME TO tournament;
CREATE INDEX tournament_by_name ON tournament(name);

CREATE VIEW elo_latest AS                -- the newest tournament of each name
  SELECT t.name AS tournament, t.method, rank() OVER (PARTITION BY t.tournament_id ORDER BY g.rating DESC) AS rank,
    s.name AS system, g.rating, g.order_sd, g.ci_lo, g.ci_hi, g.ci_method, g.games, g.wins, g.losses, g.ties,
    t.created_at, t.tournament_id
  FROM rating g JOIN tournament t USING (tournament_id) JOIN system s USING (system_id)
  WHERE t.tournament_id IN (SELECT max(tournament_id) FROM tournament GROUP BY name)
  ORDER BY t.name, g.rating DESC;
