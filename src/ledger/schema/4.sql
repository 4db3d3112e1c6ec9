-- Version 4: the PBX's part in a call. NULL: there was none.

-- {"name", "codec", "encrypted", "cause", "early_media", "diverted_from"}
ALTER TABLE calls ADD COLUMN trunk TEXT;
