-- Results store, version 1. Never edited once landed: changes are further numbered files.
-- All tables are STRICT; small integers link them, SHA-256 digests name things for the outside; JSON columns
-- hold valid JSON; times are ISO-8601 UTC text. The connection sets the rest (results/sqlite.cpp).

-- ---------- machines, sweeps, runs ----------

CREATE TABLE host(                       -- a machine as it was found
  host_id INTEGER PRIMARY KEY,
  hostname TEXT NOT NULL,
  info TEXT NOT NULL CHECK(json_valid(info)),
  UNIQUE(hostname, info)) STRICT;

CREATE TABLE sweep(
  sweep_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  yaml TEXT NOT NULL,                    -- the file as the user wrote it
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z'),
  declared_at TEXT NOT NULL CHECK(declared_at LIKE '____-__-__T__:__:__%Z')) STRICT;

CREATE TABLE run(                        -- one resolved configuration
  run_id INTEGER PRIMARY KEY,
  run_key BLOB NOT NULL UNIQUE CHECK(length(run_key) = 32),
  name TEXT NOT NULL,
  config TEXT NOT NULL CHECK(json_valid(config)),
  state TEXT NOT NULL DEFAULT 'pending'
    CHECK(state IN ('pending', 'running', 'finished', 'failed', 'killed', 'pruned')),
  reason TEXT NOT NULL DEFAULT '',       -- nan_loss, no_labels, oom, ...
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z'),
  finished_at TEXT CHECK(finished_at LIKE '____-__-__T__:__:__%Z'),
  model TEXT GENERATED ALWAYS AS (config ->> '$.model_name_or_path') VIRTUAL,
  dataset TEXT GENERATED ALWAYS AS (config ->> '$.dataset') VIRTUAL,
  quant TEXT GENERATED ALWAYS AS (       -- nf4, nf4+dq, fp4, ..., or none for a base that is not quantized
    CASE WHEN coalesce(config ->> '$.bits', 4) = 4 AND config ->> '$.quant_type' IS NOT NULL
      THEN (config ->> '$.quant_type') || iif(coalesce(config ->> '$.double_quant', 0), '+dq', '')
      ELSE 'none' END) VIRTUAL,
  lora_r INTEGER GENERATED ALWAYS AS (config ->> '$.lora_r') VIRTUAL,
  learning_rate REAL GENERATED ALWAYS AS (CAST(config ->> '$.learning_rate' AS REAL)) VIRTUAL,
  seed INTEGER GENERATED ALWAYS AS (config ->> '$.seed') VIRTUAL,
  max_steps INTEGER GENERATED ALWAYS AS (config ->> '$.max_steps') VIRTUAL,
  -- the configuration without what tells repeats apart: groups the seeds of one setting
  group_key TEXT GENERATED ALWAYS AS (json_remove(config, '$.seed', '$.output_dir', '$.run_name')) VIRTUAL,
  CHECK((state = 'finished') = (finished_at IS NOT NULL))) STRICT;
CREATE INDEX run_by_state ON run(state);
CREATE INDEX run_by_setting ON run(model, dataset, quant, seed);

CREATE TABLE sweep_run(                  -- a run may belong to several sweeps
  sweep_id INTEGER NOT NULL REFERENCES sweep ON DELETE CASCADE,
  ordinal INTEGER NOT NULL,
  run_id INTEGER NOT NULL REFERENCES run,
  PRIMARY KEY(sweep_id, ordinal),
  UNIQUE(sweep_id, run_id)) STRICT, WITHOUT ROWID;
CREATE INDEX sweep_run_by_run ON sweep_run(run_id);

CREATE TABLE attempt(                    -- one process's life with one run
  run_id INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  attempt INTEGER NOT NULL CHECK(attempt >= 1),
  engine TEXT NOT NULL CHECK(engine IN ('local', 'slurm', 'mpi')),
  host_id INTEGER REFERENCES host,
  program TEXT NOT NULL,
  pid INTEGER,
  start_step INTEGER NOT NULL CHECK(start_step >= 0),
  started_at TEXT NOT NULL CHECK(started_at LIKE '____-__-__T__:__:__%Z'),
  ended_at TEXT CHECK(ended_at LIKE '____-__-__T__:__:__%Z'),
  outcome TEXT CHECK(outcome IN ('finished', 'failed', 'oom', 'killed', 'interrupted', 'lost', 'pruned')),
  exit_code INTEGER,
  signal INTEGER,
  error TEXT NOT NULL DEFAULT '',
  log_path TEXT NOT NULL DEFAULT '',
  estimated_bytes INTEGER,
  peak_bytes INTEGER,
  seconds REAL,
  PRIMARY KEY(run_id, attempt),
  CHECK((outcome IS NULL) = (ended_at IS NULL))) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_open ON attempt(run_id) WHERE ended_at IS NULL;

-- ---------- curves ----------

CREATE TABLE metric_name(
  metric_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE) STRICT;

CREATE TABLE metric(                     -- a step written again (after a resume) replaces the earlier one
  run_id INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  metric_id INTEGER NOT NULL REFERENCES metric_name,
  step INTEGER NOT NULL CHECK(step >= 0),
  value REAL,                            -- NULL: not a finite number
  PRIMARY KEY(run_id, metric_id, step)) STRICT, WITHOUT ROWID;

-- ---------- evaluations ----------

CREATE TABLE subject_model(              -- what is scored: a run's adapter, or a base in one quantization
  subject_model_id INTEGER PRIMARY KEY,
  subject_key BLOB NOT NULL UNIQUE CHECK(length(subject_key) = 32),
  name TEXT NOT NULL,
  model TEXT NOT NULL,
  quant TEXT NOT NULL,
  run_id INTEGER UNIQUE REFERENCES run) STRICT;    -- NULL: a base

CREATE TABLE task(
  task_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN ('choice', 'generate', 'perplexity', 'classify')),
  data_sha256 BLOB NOT NULL CHECK(length(data_sha256) = 32),
  UNIQUE(name, data_sha256)) STRICT;

CREATE TABLE subject(                    -- a part of a task; the empty name stands for the whole
  subject_id INTEGER PRIMARY KEY,
  task_id INTEGER NOT NULL REFERENCES task,
  name TEXT NOT NULL,
  UNIQUE(task_id, name)) STRICT;

CREATE TABLE item(                       -- a question
  item_id INTEGER PRIMARY KEY,
  subject_id INTEGER NOT NULL REFERENCES subject,
  ordinal INTEGER NOT NULL CHECK(ordinal >= 0),
  gold INTEGER NOT NULL,
  UNIQUE(subject_id, ordinal)) STRICT;

CREATE TABLE prompt(                     -- the bytes that a model saw, by their hash
  prompt_id INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL UNIQUE CHECK(length(sha256) = 32)) STRICT;

CREATE TABLE evaluation(                 -- one state of one subject model on one task by one protocol
  evaluation_id INTEGER PRIMARY KEY,
  evaluation_key BLOB NOT NULL UNIQUE CHECK(length(evaluation_key) = 32),
  subject_model_id INTEGER NOT NULL REFERENCES subject_model,
  step INTEGER NOT NULL CHECK(step >= 0),
  task_id INTEGER NOT NULL REFERENCES task,
  protocol TEXT NOT NULL CHECK(json_valid(protocol)),
  shots INTEGER GENERATED ALWAYS AS (protocol ->> '$.shots') VIRTUAL,
  started_at TEXT NOT NULL CHECK(started_at LIKE '____-__-__T__:__:__%Z'),
  seconds REAL NOT NULL) STRICT;
CREATE INDEX evaluation_by_subject_model ON evaluation(subject_model_id, task_id, step);
CREATE INDEX evaluation_by_task ON evaluation(task_id, subject_model_id);

CREATE TABLE eval_result(                -- aggregates; the predictions stay for other ones
  evaluation_id INTEGER NOT NULL REFERENCES evaluation ON DELETE CASCADE,
  metric_id INTEGER NOT NULL REFERENCES metric_name,
  subject_id INTEGER NOT NULL REFERENCES subject,
  n INTEGER NOT NULL,
  value REAL,                            -- NULL: not a finite number
  standard_error REAL,
  PRIMARY KEY(evaluation_id, metric_id, subject_id)) STRICT, WITHOUT ROWID;

CREATE TABLE prediction(
  evaluation_id INTEGER NOT NULL REFERENCES evaluation ON DELETE CASCADE,
  item_id INTEGER NOT NULL REFERENCES item,
  pred INTEGER NOT NULL,
  correct INTEGER NOT NULL CHECK(correct IN (0, 1)),
  prompt_id INTEGER NOT NULL REFERENCES prompt,
  dropped_shots INTEGER NOT NULL,
  scores BLOB NOT NULL,                  -- f32, little endian, one a choice
  PRIMARY KEY(evaluation_id, item_id)) STRICT, WITHOUT ROWID;

-- ---------- generations, judgments, tournaments ----------

CREATE TABLE system(                     -- who competes: a run, or a name in somebody's files
  system_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  run_id INTEGER REFERENCES run) STRICT;

CREATE TABLE judge(
  judge_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE) STRICT;

CREATE TABLE generation(                 -- a system's answer to an item
  generation_id INTEGER PRIMARY KEY,
  system_id INTEGER NOT NULL REFERENCES system,
  item_id INTEGER NOT NULL REFERENCES item,
  sample INTEGER NOT NULL DEFAULT 0,
  text TEXT NOT NULL,
  params TEXT NOT NULL CHECK(json_valid(params)),
  UNIQUE(system_id, item_id, sample)) STRICT;
CREATE INDEX generation_by_item ON generation(item_id, system_id);

CREATE TABLE judgment(                   -- a judge's verdict on one or two stored generations
  judgment_id INTEGER PRIMARY KEY,
  judge_id INTEGER NOT NULL REFERENCES judge,
  generation_a INTEGER NOT NULL REFERENCES generation ON DELETE CASCADE,
  generation_b INTEGER REFERENCES generation ON DELETE CASCADE,
  shown_first TEXT NOT NULL CHECK(shown_first IN ('a', 'b')),
  repeat INTEGER NOT NULL DEFAULT 0,
  score INTEGER CHECK(score IN (1, 2, 3, -1)),
  score_a REAL,
  score_b REAL,
  raw TEXT NOT NULL,
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z')) STRICT;
CREATE UNIQUE INDEX judgment_once
  ON judgment(judge_id, generation_a, ifnull(generation_b, 0), shown_first, repeat);

CREATE TABLE vote_file(                  -- a file of votes, by its content
  vote_file_id INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL CHECK(length(sha256) = 32),
  path TEXT NOT NULL,                    -- as it was first read; the names of the systems stand in it
  UNIQUE(sha256, path)) STRICT;

CREATE TABLE vote(                       -- a judgment whose answers are known by their systems' names alone
  source_file INTEGER NOT NULL REFERENCES vote_file ON DELETE CASCADE,
  source_line INTEGER NOT NULL CHECK(source_line >= 1),
  judge_id INTEGER NOT NULL REFERENCES judge,
  item TEXT NOT NULL,
  system_a INTEGER NOT NULL REFERENCES system,
  system_b INTEGER NOT NULL REFERENCES system,
  shown_first TEXT NOT NULL CHECK(shown_first IN ('a', 'b', '?')),
  rater TEXT NOT NULL DEFAULT '',
  score INTEGER NOT NULL CHECK(score IN (1, 2, 3, -1)),   -- a wins, b wins, tie, no verdict
  PRIMARY KEY(source_file, source_line)) STRICT, WITHOUT ROWID;

CREATE TABLE tournament(
  tournament_id INTEGER PRIMARY KEY,
  tournament_key BLOB NOT NULL UNIQUE CHECK(length(tournament_key) = 32),
  name TEXT NOT NULL,
  method TEXT NOT NULL CHECK(method IN ('elo', 'bradley-terry')),
  params TEXT NOT NULL CHECK(json_valid(params)),
  matches INTEGER NOT NULL,
  invalid INTEGER NOT NULL,
  created_at TEXT NOT NULL CHECK(created_at LIKE '____-__-__T__:__:__%Z')) STRICT;
CREATE INDEX tournament_by_name ON tournament(name);

CREATE TABLE tournament_file(
  tournament_id INTEGER NOT NULL REFERENCES tournament ON DELETE CASCADE,
  vote_file_id INTEGER NOT NULL REFERENCES vote_file,
  PRIMARY KEY(tournament_id, vote_file_id)) STRICT, WITHOUT ROWID;

CREATE TABLE rating(
  tournament_id INTEGER NOT NULL REFERENCES tournament ON DELETE CASCADE,
  system_id INTEGER NOT NULL REFERENCES system,
  rating REAL NOT NULL,
  order_sd REAL NOT NULL,                -- over random orders: noise of the method
  ci_lo REAL,                            -- of the data, by ci_method
  ci_hi REAL,
  ci_method TEXT NOT NULL DEFAULT '',
  games INTEGER NOT NULL,
  wins INTEGER NOT NULL,
  losses INTEGER NOT NULL,
  ties INTEGER NOT NULL,
  PRIMARY KEY(tournament_id, system_id),
  CHECK((ci_lo IS NULL) = (ci_hi IS NULL)),
  CHECK((ci_lo IS NULL) = (ci_method = ''))) STRICT, WITHOUT ROWID;

-- ---------- views, for people and for tools such as sqlite-utils and datasette ----------

CREATE VIEW curves AS                    -- one row a step
  SELECT r.name, m.step,
    max(CASE n.name WHEN 'loss' THEN m.value END) AS loss,
    max(CASE n.name WHEN 'grad_norm' THEN m.value END) AS grad_norm,
    max(CASE n.name WHEN 'learning_rate' THEN m.value END) AS learning_rate,
    CAST(max(CASE n.name WHEN 'tokens' THEN m.value END) AS INTEGER) AS tokens,
    CAST(max(CASE n.name WHEN 'labels' THEN m.value END) AS INTEGER) AS labels,
    max(CASE n.name WHEN 'seconds' THEN m.value END) AS seconds,
    r.run_id
  FROM metric m JOIN run r USING (run_id) JOIN metric_name n USING (metric_id)
  GROUP BY m.run_id, m.step;

CREATE VIEW runs_view AS                 -- one row a run, with where it stands
  SELECT r.name, r.state, r.reason, r.model, r.dataset, r.quant, r.lora_r, r.learning_rate, r.seed,
    r.max_steps,
    (SELECT max(step) FROM metric m JOIN metric_name n USING (metric_id)
      WHERE m.run_id = r.run_id AND n.name = 'loss') AS steps,
    (SELECT value FROM metric m JOIN metric_name n USING (metric_id)
      WHERE m.run_id = r.run_id AND n.name = 'loss' ORDER BY step DESC LIMIT 1) AS train_loss,
    (SELECT CAST(sum(value) AS INTEGER) FROM metric m JOIN metric_name n USING (metric_id)
      WHERE m.run_id = r.run_id AND n.name = 'tokens') AS tokens,
    (SELECT sum(value) FROM metric m JOIN metric_name n USING (metric_id)
      WHERE m.run_id = r.run_id AND n.name = 'seconds') AS seconds,
    (SELECT count(*) FROM attempt a WHERE a.run_id = r.run_id) AS attempts,
    r.created_at, r.finished_at, lower(hex(r.run_key)) AS key, r.run_id
  FROM run r;

CREATE VIEW run_parameters AS            -- one row a run and configuration key
  SELECT r.name, j.key AS parameter, j.atom AS value, r.run_id
  FROM run r, json_each(r.config) j WHERE j.type NOT IN ('object', 'array');

CREATE VIEW scores AS                    -- one row an evaluation and metric, over the whole task
  SELECT s.name, s.model, s.quant, e.step, t.name AS task, t.version, t.kind,
    coalesce(e.protocol ->> '$.name', '') AS protocol, e.shots,
    n.name AS metric, er.n, er.value, er.standard_error, e.started_at, e.seconds,
    s.run_id, e.evaluation_id, e.subject_model_id, e.task_id
  FROM evaluation e JOIN subject_model s USING (subject_model_id) JOIN task t USING (task_id)
    JOIN eval_result er USING (evaluation_id) JOIN subject u USING (subject_id)
    JOIN metric_name n USING (metric_id)
  WHERE u.name = '';

CREATE VIEW mmlu_by_subject AS           -- accuracy by subject
  SELECT s.name, e.step, u.name AS subject, er.n, er.value AS accuracy, er.standard_error,
    coalesce(e.protocol ->> '$.name', '') AS protocol, e.shots, e.evaluation_id, s.run_id
  FROM evaluation e JOIN subject_model s USING (subject_model_id) JOIN task t USING (task_id)
    JOIN eval_result er USING (evaluation_id) JOIN subject u USING (subject_id)
    JOIN metric_name n USING (metric_id)
  WHERE t.name = 'mmlu' AND n.name = 'acc' AND u.name <> '';

CREATE VIEW leaderboard AS               -- one row a run and base (and MMLU setting, where there are several)
  WITH
    mmlu AS (                            -- the last state of each subject model that was scored
      SELECT subject_model_id, evaluation_id, task_id, protocol, shots, max(step) AS step
      FROM scores WHERE task = 'mmlu' AND metric = 'acc' AND (run_id IS NULL OR step > 0)
      GROUP BY subject_model_id, task_id, protocol, shots, n),
    entrant AS (
      SELECT r.run_id, r.name, r.state, r.model, r.dataset, coalesce(s.quant, r.quant) AS quant, r.lora_r,
        r.learning_rate, r.seed, r.steps, r.train_loss, r.tokens, r.seconds, r.key, s.subject_model_id
      FROM runs_view r LEFT JOIN subject_model s USING (run_id)
      UNION ALL
      SELECT NULL, s.name, 'base', s.model, NULL, s.quant, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        lower(hex(s.subject_key)), s.subject_model_id
      FROM subject_model s WHERE s.run_id IS NULL)
  SELECT e.name, e.state, e.model, e.dataset, e.quant, e.lora_r, e.learning_rate, e.seed, e.steps,
    e.train_loss,
    (SELECT value FROM scores c WHERE c.run_id = e.run_id AND c.kind = 'perplexity' AND c.metric = 'loss'
      AND c.step = 0 ORDER BY c.evaluation_id DESC LIMIT 1) AS loss_before,
    (SELECT value FROM scores c WHERE c.run_id = e.run_id AND c.kind = 'perplexity' AND c.metric = 'loss'
      AND c.step > 0 ORDER BY c.step DESC, c.evaluation_id DESC LIMIT 1) AS loss_after,
    micro.value AS mmlu, micro.standard_error AS mmlu_se,
    macro.value AS mmlu_macro, macro.standard_error AS mmlu_macro_se, micro.n AS mmlu_n,
    CASE WHEN mmlu.evaluation_id IS NOT NULL
      THEN mmlu.protocol || coalesce(' ' || mmlu.shots || '-shot', '') END AS protocol,
    e.tokens, e.seconds, e.key, e.run_id
  FROM entrant e LEFT JOIN mmlu USING (subject_model_id)
    LEFT JOIN scores micro ON micro.evaluation_id = mmlu.evaluation_id AND micro.metric = 'acc'
    LEFT JOIN scores macro ON macro.evaluation_id = mmlu.evaluation_id AND macro.metric = 'acc_macro'
  ORDER BY mmlu DESC NULLS LAST, loss_after ASC NULLS LAST, e.name;

CREATE VIEW elo_latest AS                -- the newest tournament of each name
  SELECT t.name AS tournament, rank() OVER (PARTITION BY t.tournament_id ORDER BY g.rating DESC) AS rank,
    s.name AS system, g.rating, g.order_sd, g.ci_lo, g.ci_hi, g.ci_method, g.games, g.wins, g.losses, g.ties,
    t.created_at, t.tournament_id
  FROM rating g JOIN tournament t USING (tournament_id) JOIN system s USING (system_id)
  WHERE t.tournament_id IN (SELECT max(tournament_id) FROM tournament GROUP BY name)
  ORDER BY t.name, g.rating DESC;

CREATE VIEW votes_view AS
  SELECT j.name AS judge, v.item, a.name AS system_a, b.name AS system_b, v.shown_first, v.rater, v.score,
    f.path AS source_file, v.source_line
  FROM vote v JOIN judge j USING (judge_id) JOIN vote_file f ON f.vote_file_id = v.source_file
    JOIN system a ON a.system_id = v.system_a JOIN system b ON b.system_id = v.system_b;
