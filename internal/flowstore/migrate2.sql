-- From version 1, which knew of a connection without records only that it was
-- one, to version 2.

ALTER TABLE hops ADD COLUMN kinship TEXT;
UPDATE hops SET kinship = 'implied' WHERE implied;
ALTER TABLE hops DROP COLUMN implied;

CREATE TABLE links (
	flow     TEXT NOT NULL,
	n        INTEGER NOT NULL,
	earlier  TEXT NOT NULL,  -- id of a flow of which this one may be the rest
	PRIMARY KEY (flow, n)
) STRICT, WITHOUT ROWID;

DROP TRIGGER flow_gone;
CREATE TRIGGER flow_gone AFTER DELETE ON flows BEGIN
	DELETE FROM hops WHERE flow = old.id;
	DELETE FROM skips WHERE flow = old.id;
	DELETE FROM links WHERE flow = old.id;
END;
