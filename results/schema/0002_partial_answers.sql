-- Version 2: answers of evaluations that are not whole yet, so that an interrupted one goes on where it was.

CREATE TABLE partial_answer(             -- gone once the evaluation is written
  evaluation_key BLOB NOT NULL CHECK(length(evaluation_key) = 32),
  request_sha256 BLOB NOT NULL CHECK(length(request_sha256) = 32),
  answer BLOB NOT NULL,                  -- what eval/remembering_lm.cpp makes of it
  PRIMARY KEY(evaluation_key, request_sha256)) STRICT, WITHOUT ROWID;
