-- Times and durations are in nanoseconds: times since 1970, UTC. What is not
-- known is NULL. docs/flows.md is the reference.

CREATE TABLE flows (
	id          TEXT PRIMARY KEY,  -- 16 hexadecimal digits
	started     INTEGER NOT NULL,
	ended       INTEGER,
	outcome     TEXT NOT NULL,
	program     TEXT,
	pid         INTEGER,
	uid         INTEGER,
	user        TEXT,
	protocol    TEXT,              -- udp; NULL: TCP
	destination TEXT,
	port        INTEGER,
	name        TEXT,              -- that led to destination, as far as it was known
	sent        INTEGER,           -- bytes; of UDP, datagrams
	received    INTEGER,
	executable  TEXT,
	unverified  INTEGER NOT NULL,
	args        TEXT,              -- a JSON array
	cgroup      TEXT,
	unit        TEXT,
	container   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX flows_by_start ON flows (started);

CREATE TABLE hops (
	flow            TEXT NOT NULL,
	n               INTEGER NOT NULL,
	kind            TEXT NOT NULL,
	provider        TEXT,
	filter          TEXT,
	state           TEXT,
	protocol        TEXT,     -- as in flows
	destination     TEXT,
	port            INTEGER,
	name            TEXT,     -- as in flows
	kinship         TEXT,
	connected       INTEGER,
	accepted        INTEGER,
	closed          INTEGER,
	duration        INTEGER,
	sent            INTEGER,
	received        INTEGER,
	error           TEXT,
	pid             INTEGER,
	uid             INTEGER,
	gid             INTEGER,
	comm            TEXT,
	process_started INTEGER,  -- since boot
	cgroup_id       INTEGER,
	netns_cookie    INTEGER,
	device          INTEGER,
	inode           INTEGER,
	args            TEXT,              -- a JSON array
	PRIMARY KEY (flow, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE skips (
	flow     TEXT NOT NULL,
	hop      INTEGER NOT NULL,
	n        INTEGER NOT NULL,  -- the order in which they were asked
	provider TEXT NOT NULL,
	reason   TEXT NOT NULL,
	PRIMARY KEY (flow, hop, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE links (
	flow     TEXT NOT NULL,
	n        INTEGER NOT NULL,
	earlier  TEXT NOT NULL,  -- id of a flow of which this one may be the rest
	PRIMARY KEY (flow, n)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER flow_gone AFTER DELETE ON flows BEGIN
	DELETE FROM hops WHERE flow = old.id;
	DELETE FROM skips WHERE flow = old.id;
	DELETE FROM links WHERE flow = old.id;
END;

CREATE VIEW chains AS SELECT
	strftime('%Y-%m-%d %H:%M:%f', started / 1e9, 'unixepoch', 'localtime') AS time,
	id AS flow,
	program,
	pid,
	coalesce(user, uid) AS user,
	iif(destination LIKE '%:%', '[' || destination || ']', destination) || ':' || port AS destination,
	(SELECT group_concat(provider, ' → ' ORDER BY n) FROM hops WHERE flow = id AND kind = 'redirected') AS via,
	(SELECT group_concat(provider, ', ' ORDER BY hop, n) FROM skips WHERE flow = id AND reason = 'down') AS down,
	outcome,
	(SELECT group_concat(error, ', ' ORDER BY n) FROM hops WHERE flow = id) AS errors,
	(ended - started) / 1e6 AS ms,
	sent,
	received
FROM flows;
