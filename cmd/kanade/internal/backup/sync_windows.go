package backup

// syncDir does nothing: a directory can't be opened to be written there.
func syncDir(string) error { return nil }
