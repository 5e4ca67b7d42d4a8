package domain

import (
	"strings"
	"unicode/utf8"

	"kanade/libs/catalog"
)

// MaxObject is the size of a script object, in bytes.
const MaxObject = 4 << 20

// ObjectKey is where a script object lies in its store: <name>/<version>.
func ObjectKey(name, version string) (string, error) {
	for field, part := range map[string]string{"name": name, "version": version} {
		if !catalog.ValidObjectPart(part) {
			return "", RefuseField(Invalid, field, "expected printable ASCII without slashes, quotes and backslashes, got %q", part)
		}
	}
	return name + "/" + version, nil
}

// CheckObject refuses what no agent takes as a script.
func CheckObject(content []byte) error {
	switch {
	case len(content) == 0:
		return RefuseField(Invalid, "file", "must not be empty")
	case !utf8.Valid(content):
		return RefuseField(Invalid, "file", "must be UTF-8: agents take nothing else as a script")
	}
	return nil
}

// ObjectInUse refuses to take away or to replace the bytes of a script object that is in use: jobs are those that name
// it, execs those that have not expired and pinned it. Endpoints that come for other bytes than the pinned ones skip, and
// agents of 0.43.45 say nothing at all.
func ObjectInUse(key string, jobs, execs []string) error {
	switch {
	case len(jobs) > 0:
		return Refuse(Conflict, "script object '%s' is named by the job%s %s; change or delete them first, or upload under another version",
			key, plural(jobs), quoted(jobs))
	case len(execs) > 0:
		return Refuse(Conflict,
			"script object '%s' is what the execution%s %s %s, which endpoints may still come for; kill them and wait for their expiry, or upload under another version",
			key, plural(execs), quoted(execs), agree(len(execs), "runs", "run"))
	}
	return nil
}

// NoObject refuses an exec whose script object is not there.
func NoObject(key string) error {
	return Refuse(NotFound, "script object '%s' not found — upload it first (POST /api/script-objects/%s)", key, key)
}

func plural(names []string) string {
	if len(names) == 1 {
		return ""
	}
	return "s"
}

// quoted lists the first few names.
func quoted(names []string) string {
	const few = 5
	text := "'" + strings.Join(names[:min(few, len(names))], "', '") + "'"
	if len(names) > few {
		text += " and others"
	}
	return text
}
