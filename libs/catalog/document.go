package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
)

// Document is the manifest as it is stored, hashed, and answered by GET /api/jobs: JSON, defaults filled in, fields in the
// order of the type. Equal manifests give equal bytes.
func (m *Manifest) Document() ([]byte, error) { return document("manifest", m.ID, m) }

// Document is the schedule as it is stored, hashed, and answered by GET /api/schedules; see [Manifest.Document].
func (s *Schedule) Document() ([]byte, error) { return document("schedule", s.ID, s) }

// Document is the plan as JSON; see [Manifest.Document].
func (p *Plan) Document() ([]byte, error) { return document("plan", "", p) }

func document(noun, id string, v any) ([]byte, error) {
	doc, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write %s %s: %w", noun, id, err)
	}
	return doc, nil
}

// Hash identifies the content of a document: the lower-case hex SHA-256 of its bytes as stored. It is stored with them
// and never computed again from another form.
func Hash(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// ParseManifestDocument reads a stored manifest, of this version or a later one: unknown keys and words pass, rules are
// not checked again.
func ParseManifestDocument(doc []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decodeLeniently(doc, m); err != nil {
		return nil, fmt.Errorf("read stored manifest: %w", err)
	}
	return m, nil
}

// ParseScheduleDocument reads a stored schedule; see [ParseManifestDocument].
func ParseScheduleDocument(doc []byte) (*Schedule, error) {
	s := new(Schedule)
	if err := decodeLeniently(doc, s); err != nil {
		return nil, fmt.Errorf("read stored schedule: %w", err)
	}
	return s, nil
}

// ParsePlanDocument reads a stored plan; see [ParseManifestDocument].
func ParsePlanDocument(doc []byte) (*Plan, error) {
	p := new(Plan)
	if err := decodeLeniently(doc, p); err != nil {
		return nil, fmt.Errorf("read stored plan: %w", err)
	}
	return p, nil
}
