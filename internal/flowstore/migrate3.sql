-- From version 2, which knew of TCP alone, to version 3.

ALTER TABLE flows ADD COLUMN protocol TEXT;
ALTER TABLE hops ADD COLUMN protocol TEXT;
