-- Votes that were given to the store as votes, apart from those that only a tournament over files brought along: a
-- tournament may rate another reading of votes that are here, and the two must not count together.

ALTER TABLE vote_file ADD COLUMN given INTEGER NOT NULL DEFAULT 1 CHECK(given IN (0, 1));
