"""The Jobs form: accepted work that survives the process. Its store is SQLite, on a thread of its own."""
