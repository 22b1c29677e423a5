-- run.quant names int8 as well: of the first version's column, any bits but 4 were a base that is not quantized.
-- A generated column cannot be changed, so it and what reads it are made anew; the rest of them is as it was.

DROP VIEW leaderboard;
DROP VIEW runs_view;
DROP INDEX run_by_setting;
ALTER TABLE run DROP COLUMN quant;

ALTER TABLE run ADD COLUMN quant TEXT GENERATED ALWAYS AS (   -- nf4, nf4+dq, int8, ..., or none: not quantized
  CASE WHEN coalesce(config ->> '$.bits', 4) <> 32 AND config ->> '$.quant_type' IS NOT NULL
    THEN (config ->> '$.quant_type') || iif(coalesce(config ->> '$.double_quant', 0), '+dq', '')
    ELSE 'none' END) VIRTUAL;
CREATE INDEX run_by_setting ON run(model, dataset, quant, seed);

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
