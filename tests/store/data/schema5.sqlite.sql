CREATE TABLE llmkit_meta (
  "key" TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY ("key")
);
CREATE TABLE llmkit_sessions (
  id TEXT NOT NULL,
  title TEXT,
  preset TEXT NOT NULL,
  version INTEGER,
  snapshot TEXT NOT NULL,
  forked_from TEXT,
  next_turn INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  created_at FLOAT NOT NULL,
  updated_at FLOAT NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE llmkit_parts (
  hash TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (hash)
);
CREATE TABLE llmkit_turns (
  session_id TEXT NOT NULL,
  turn INTEGER NOT NULL,
  status TEXT NOT NULL,
  owner TEXT,
  expires FLOAT,
  partial TEXT,
  details TEXT,
  cost_usd FLOAT,
  created_at FLOAT NOT NULL,
  PRIMARY KEY (session_id, turn),
  FOREIGN KEY(session_id) REFERENCES llmkit_sessions (id) ON DELETE CASCADE
);
CREATE TABLE llmkit_messages (
  id INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  turn INTEGER NOT NULL,
  number INTEGER NOT NULL,
  body TEXT NOT NULL,
  text TEXT,
  PRIMARY KEY (id),
  UNIQUE (session_id, turn, number),
  FOREIGN KEY(session_id, turn) REFERENCES llmkit_turns (session_id, turn) ON DELETE CASCADE
);
CREATE VIRTUAL TABLE llmkit_search USING fts5(text, content='llmkit_messages', content_rowid='id');
CREATE TABLE llmkit_ledger (
  id INTEGER NOT NULL,
  at FLOAT NOT NULL,
  call TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  asked TEXT NOT NULL,
  answered TEXT,
  deployment TEXT NOT NULL,
  preset TEXT,
  session TEXT,
  tags TEXT,
  prompt_tokens INTEGER,
  completion_tokens INTEGER,
  cached_tokens INTEGER,
  reasoning_tokens INTEGER,
  cost_usd FLOAT,
  source TEXT,
  price_source TEXT,
  latency_s FLOAT,
  first_token_s FLOAT,
  request_id TEXT,
  PRIMARY KEY (id)
);
CREATE TABLE llmkit_budgets (
  name TEXT NOT NULL,
  rule TEXT NOT NULL,
  PRIMARY KEY (name)
);
CREATE TABLE llmkit_spent (
  budget TEXT NOT NULL,
  span TEXT NOT NULL,
  settled FLOAT NOT NULL,
  calls INTEGER NOT NULL,
  unpriced INTEGER NOT NULL,
  PRIMARY KEY (budget, span),
  FOREIGN KEY(budget) REFERENCES llmkit_budgets (name) ON DELETE CASCADE
);
CREATE TABLE llmkit_holds (
  id TEXT NOT NULL,
  budget TEXT NOT NULL,
  span TEXT NOT NULL,
  amount FLOAT NOT NULL,
  owner TEXT NOT NULL,
  expires FLOAT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(budget) REFERENCES llmkit_budgets (name) ON DELETE CASCADE
);
CREATE TABLE llmkit_runs (
  id TEXT NOT NULL,
  model TEXT NOT NULL,
  name TEXT NOT NULL,
  status TEXT NOT NULL,
  owner TEXT NOT NULL,
  expires FLOAT NOT NULL,
  cancelled INTEGER NOT NULL,
  response TEXT,
  created_at FLOAT NOT NULL,
  ended_at FLOAT,
  PRIMARY KEY (id)
);
CREATE TABLE llmkit_keys (
  name TEXT NOT NULL,
  hash TEXT NOT NULL,
  prefix TEXT NOT NULL,
  budget TEXT,
  models TEXT,
  created_at FLOAT NOT NULL,
  PRIMARY KEY (name)
);
CREATE TABLE llmkit_signing (
  name TEXT NOT NULL,
  secret TEXT NOT NULL,
  PRIMARY KEY (name)
);
CREATE INDEX ix_llmkit_sessions_updated_at ON llmkit_sessions (updated_at);
CREATE INDEX ix_llmkit_ledger_at ON llmkit_ledger (at);
CREATE INDEX ix_llmkit_holds_budget ON llmkit_holds (budget);
CREATE INDEX ix_llmkit_runs_created_at ON llmkit_runs (created_at);
CREATE INDEX ix_llmkit_keys_hash ON llmkit_keys (hash);
CREATE TRIGGER llmkit_search_insert AFTER INSERT ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(rowid, text) VALUES (new.id, new.text); END;
CREATE TRIGGER llmkit_search_delete AFTER DELETE ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(llmkit_search, rowid, text) VALUES ('delete', old.id, old.text); END;
