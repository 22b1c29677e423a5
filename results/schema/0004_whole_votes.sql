-- Votes keep all that a judge said: its words, its prompt, points, turns, single answers, several votes a line.

DROP VIEW votes_view;

CREATE TABLE whole_vote(                 -- one judgment of one or two answers, as its file holds it
  vote_id INTEGER PRIMARY KEY,
  source_file INTEGER NOT NULL REFERENCES vote_file ON DELETE CASCADE,
  source_line INTEGER NOT NULL CHECK(source_line >= 1),
  source_part INTEGER NOT NULL DEFAULT 0,
  judge_id INTEGER NOT NULL REFERENCES judge,
  item TEXT NOT NULL,
  turn INTEGER NOT NULL DEFAULT 1,
  system_a INTEGER NOT NULL REFERENCES system,
  system_b INTEGER REFERENCES system,    -- NULL: one answer alone was scored
  shown_first TEXT NOT NULL CHECK(shown_first IN ('a', 'b', '?')),
  rater TEXT NOT NULL DEFAULT '',
  prompt TEXT NOT NULL DEFAULT '',       -- the judge's prompt template
  score INTEGER NOT NULL CHECK(score IN (1, 2, 3, 4, -1)),  -- a wins, b wins, tie, both bad, no verdict
  points INTEGER NOT NULL DEFAULT 0 CHECK(points IN (0, 1)),
  score_a REAL,                          -- points, or shares of a divided verdict
  score_b REAL,
  answer_a TEXT NOT NULL DEFAULT '',
  answer_b TEXT NOT NULL DEFAULT '',
  length_a INTEGER NOT NULL DEFAULT 0,   -- bytes; 0: unknown
  length_b INTEGER NOT NULL DEFAULT 0,
  review TEXT NOT NULL DEFAULT '',
  raw TEXT NOT NULL DEFAULT '',
  UNIQUE(source_file, source_line, source_part)) STRICT;

INSERT INTO whole_vote(source_file, source_line, judge_id, item, system_a, system_b, shown_first, rater, score)
  SELECT source_file, source_line, judge_id, item, system_a, system_b, shown_first, rater, score FROM vote;
DROP TABLE vote;
ALTER TABLE whole_vote RENAME TO vote;

CREATE TABLE vote_parse(                 -- what a parser made of a vote's words later; the vote stays as it is
  vote_id INTEGER NOT NULL REFERENCES vote ON DELETE CASCADE,
  parser TEXT NOT NULL,
  score INTEGER NOT NULL CHECK(score IN (1, 2, 3, 4, -1)),
  score_a REAL,
  score_b REAL,
  PRIMARY KEY(vote_id, parser)) STRICT, WITHOUT ROWID;

CREATE VIEW votes_view AS
  SELECT j.name AS judge, v.item, v.turn, a.name AS system_a, b.name AS system_b, v.shown_first, v.rater, v.prompt,
    v.score, v.points, v.score_a, v.score_b, f.path AS source_file, v.source_line, v.source_part, v.raw, v.vote_id
  FROM vote v JOIN judge j USING (judge_id) JOIN vote_file f ON f.vote_file_id = v.source_file
    JOIN system a ON a.system_id = v.system_a LEFT JOIN system b ON b.system_id = v.system_b;
