-- From version 3, which knew addresses alone, to version 4.

ALTER TABLE flows ADD COLUMN name TEXT;
ALTER TABLE hops ADD COLUMN name TEXT;
