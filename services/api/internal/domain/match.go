package domain

import "strings"

// Match is the conditions of a request on the document that it changes (RFC 9110, 13.1): entity tags in quotes, separated by
// commas, or "*" for any document at all. Empty means no condition.
type Match struct {
	If     string // If-Match: the document bears one of these
	IfNone string // If-None-Match: it bears none of these, weak ones too (13.1.2); "*" is for who creates
}

// Check refuses when the document, whose hash is given (empty: there is none), is not as asked for.
func (m Match) Check(noun, id, hash string) error {
	switch {
	case m.If != "" && !names(m.If, hash, "") && hash == "":
		return Refuse(Precondition, "%s '%s' does not exist, If-Match asks for %s", noun, id, m.If)
	case m.If != "" && !names(m.If, hash, ""):
		return Refuse(Precondition, "%s '%s' has changed: it is %s, If-Match asks for %s", noun, id, ETag(hash), m.If)
	case m.IfNone != "" && names(m.IfNone, hash, "W/"):
		return Refuse(Precondition, "%s '%s' is there already: it is %s, If-None-Match refuses %s", noun, id, ETag(hash), m.IfNone)
	}
	return nil
}

// names reports whether a document is there and one of those, which may bear a prefix.
func names(tags, hash, prefix string) bool {
	for tag := range strings.SplitSeq(tags, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), prefix); hash != "" && (tag == "*" || tag == ETag(hash)) {
			return true
		}
	}
	return false
}

// ETag is the entity tag of a document: its hash in quotes.
func ETag(hash string) string { return `"` + hash + `"` }
