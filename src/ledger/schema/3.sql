-- Version 3: the voice agent's part in a call. NULL: there was none.

-- {"name", "dialect", "attempts", "first_audio_ms", "barge_ins", "unread", "unreadable", "failure"}
ALTER TABLE calls ADD COLUMN agent TEXT;
-- {"transcript": [[at_ms, "agent" or "user", text], ...], "events": [[at_ms, name, detail], ...]}
ALTER TABLE calls ADD COLUMN agent_said TEXT;
