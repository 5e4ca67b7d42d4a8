package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest is a SHA-256. sha256.Sum256 gives one.
type Digest = [sha256.Size]byte

const digestPrefix = "SHA-256="

// ParseDigest reads the form of object stores: "SHA-256=" and URL-safe base64, with or without padding.
func ParseDigest(text string) (Digest, error) {
	encoded, ok := strings.CutPrefix(text, digestPrefix)
	if !ok {
		return Digest{}, fmt.Errorf("parse digest %s: must begin with %s", quote(text), digestPrefix)
	}
	encoded = strings.TrimSuffix(encoded, "=")
	if len(encoded) != base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return Digest{}, fmt.Errorf("parse digest %s: %d base64 characters where 43 belong", quote(text), len(encoded))
	}
	var d Digest
	if n, err := base64.RawURLEncoding.Strict().Decode(d[:], []byte(encoded)); err != nil || n != len(d) {
		return Digest{}, fmt.Errorf("parse digest %s: not URL-safe base64 of %d bytes", quote(text), len(d))
	}
	return d, nil
}

// FormatDigest writes the form of object stores with padding: kanade 0.43.45 fails while it reads an object whose digest
// has none.
func FormatDigest(d Digest) string { return digestPrefix + base64.URLEncoding.EncodeToString(d[:]) }

// ParseHexDigest reads the form of messages to agents, lower-case hex; upper case is read too.
func ParseHexDigest(text string) (Digest, error) {
	var d Digest
	if len(text) != hex.EncodedLen(len(d)) {
		return Digest{}, fmt.Errorf("parse digest %s: %d hex digits where 64 belong", quote(text), len(text))
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return Digest{}, fmt.Errorf("parse digest %s: not hex", quote(text))
	}
	return d, nil
}

// HexDigest writes the form of messages to agents (Command.ScriptObjectSHA256).
func HexDigest(d Digest) string { return hex.EncodeToString(d[:]) }
