-- The documents of the Store, what they can be found by, and the log its change feed is read from.

CREATE TABLE documents (
    collection TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    PRIMARY KEY (collection, id)
) STRICT;

CREATE TABLE document_index (
    collection TEXT NOT NULL,
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    id         TEXT NOT NULL,
    PRIMARY KEY (collection, name, value, id),
    FOREIGN KEY (collection, id) REFERENCES documents (collection, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- For replacing and cascading away the entries of one document.
CREATE INDEX document_index_of_document ON document_index (collection, id);

-- One row for each document each commit changed, without a gap; the oldest are pruned.
CREATE TABLE changes (
    seq        INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    id         TEXT NOT NULL
) STRICT;

-- `last`: the newest seq ever given, also the source of versions, so it never goes back. `tag`: tells the cursors of this
-- database from those of another.
CREATE TABLE feed (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    tag      INTEGER NOT NULL CHECK (tag BETWEEN 1 AND 16777215),
    last     INTEGER NOT NULL
) STRICT;

INSERT INTO feed (only_row, tag, last) VALUES (1, 1 + (random() & 9223372036854775807) % 16777215, 0);
