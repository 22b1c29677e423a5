-- What a model said, whole: texts, what was read out of them, and what else scores can be computed from again.
-- NULL in evaluations from before.

ALTER TABLE prediction ADD COLUMN log_sum_exp REAL;   -- of scores that are logits: log-probability = score - it
ALTER TABLE prediction ADD COLUMN greedy BLOB;        -- a byte a choice: 1 where the model would have written it
ALTER TABLE prediction ADD COLUMN text TEXT;          -- what it wrote, of tasks that generate, up to the first stop
ALTER TABLE prediction ADD COLUMN extracted TEXT      -- the answer by filter, an object
  CHECK(extracted IS NULL OR json_valid(extracted));

CREATE VIEW predictions_view AS          -- one row a question and who answered it
  SELECT m.name, m.quant, e.step, t.name AS task, u.name AS part, i.ordinal, i.gold, p.pred, p.correct,
    p.text, p.extracted, coalesce(e.protocol ->> '$.name', '') AS protocol, e.shots, p.dropped_shots,
    lower(hex(q.sha256)) AS prompt, m.run_id, e.evaluation_id, i.item_id
  FROM prediction p JOIN evaluation e USING (evaluation_id) JOIN subject_model m USING (subject_model_id)
    JOIN item i USING (item_id) JOIN subject u USING (subject_id) JOIN task t ON t.task_id = u.task_id
    JOIN prompt q USING (prompt_id);
