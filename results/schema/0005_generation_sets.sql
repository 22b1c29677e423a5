-- Generated answers in sets, with all that decides them, so that an interrupted generation goes on where it was.
-- No command has filled the table that this replaces.

DROP VIEW generations;
DROP TABLE generation;

CREATE TABLE generation_set(             -- one subject model's answers to one file of questions in one way
  generation_set_id INTEGER PRIMARY KEY,
  set_key BLOB NOT NULL UNIQUE CHECK(length(set_key) = 32),
  system_id INTEGER NOT NULL REFERENCES system,    -- under which name it competes
  subject_model_id INTEGER NOT NULL REFERENCES subject_model,
  step INTEGER NOT NULL CHECK(step >= 0),
  task_id INTEGER NOT NULL REFERENCES task,
  settings TEXT NOT NULL CHECK(json_valid(settings)),
  template TEXT GENERATED ALWAYS AS (settings ->> '$.template') VIRTUAL,
  decode_numerics TEXT GENERATED ALWAYS AS (settings ->> '$.decode_numerics') VIRTUAL,
  program TEXT NOT NULL,
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z'),
  UNIQUE(system_id, task_id)) STRICT;

CREATE TABLE generation(                 -- one answer, kept as soon as it was there
  generation_id INTEGER PRIMARY KEY,
  generation_set_id INTEGER NOT NULL REFERENCES generation_set ON DELETE CASCADE,
  question TEXT NOT NULL,                -- the question's id in its file
  turn INTEGER NOT NULL CHECK(turn >= 1),
  prompt_id INTEGER NOT NULL REFERENCES prompt,
  text TEXT NOT NULL,                    -- all that the model wrote
  answer TEXT NOT NULL,                  -- up to the first stop
  tokens INTEGER NOT NULL CHECK(tokens >= 0),
  finish TEXT NOT NULL CHECK(finish IN ('stop', 'length', 'no_room')),
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z'),
  UNIQUE(generation_set_id, question, turn)) STRICT;

CREATE VIEW generations AS               -- one row an answer
  SELECT y.name AS system, m.name, t.name AS questions, g.question, g.turn, g.answer, g.tokens, g.finish,
    s.template, s.decode_numerics, s.settings, s.program, g.created_at, m.run_id, g.generation_id
  FROM generation g JOIN generation_set s USING (generation_set_id) JOIN system y USING (system_id)
    JOIN subject_model m USING (subject_model_id) JOIN task t USING (task_id);
