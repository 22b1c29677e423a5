-- How an answer was made, so that only what is comparable is compared.
-- NULL: the answer was not made by this program. fast: new tokens multiplied 4-bit codes in whole numbers.
ALTER TABLE generation ADD COLUMN decode_numerics TEXT CHECK(decode_numerics IN ('fast', 'exact'));
ALTER TABLE generation ADD COLUMN prompt_id INTEGER REFERENCES prompt;   -- what the model saw
ALTER TABLE generation ADD COLUMN tokens INTEGER CHECK(tokens >= 0);     -- of the answer
ALTER TABLE generation ADD COLUMN finish TEXT CHECK(finish IN ('stop', 'length'));
ALTER TABLE generation ADD COLUMN created_at TEXT CHECK(created_at LIKE '____-__-__T__:__:__%Z');

CREATE VIEW generations AS               -- one row an answer
  SELECT s.name AS system, t.name AS task, u.name AS subject, i.ordinal, g.sample, g.text, g.tokens, g.finish,
    g.decode_numerics, g.params, lower(hex(p.sha256)) AS prompt, g.created_at, s.run_id, g.generation_id
  FROM generation g JOIN system s USING (system_id) JOIN item i USING (item_id)
    JOIN subject u USING (subject_id) JOIN task t USING (task_id) LEFT JOIN prompt p USING (prompt_id);
