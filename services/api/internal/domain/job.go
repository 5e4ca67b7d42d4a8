package domain

import (
	"fmt"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// SaveJob decides what storing a manifest appends; nil means that nothing changes. The manifest must have passed
// Manifest.Unsupported. The same id and version with other content is another revision, told apart by its hash.
func SaveJob(cur Job, m *catalog.Manifest, source string, t catalog.SourceType, match Match) (*events.JobSaved, error) {
	if err := match.Check("job", m.ID, jobHash(cur)); err != nil {
		return nil, err
	}
	doc, err := m.Document()
	if err != nil {
		return nil, fmt.Errorf("save job %s: %w", m.ID, err)
	}
	saved := &events.JobSaved{ID: m.ID, Version: m.Version, DocumentRevision: events.DocumentRevision{
		Document: doc, Source: source, SourceType: string(t), Hash: catalog.Hash(doc),
	}}
	if cur.Saved != nil && same(cur.Saved.DocumentRevision, saved.DocumentRevision) {
		return nil, nil
	}
	return saved, nil
}

// DeleteJob decides what deleting a job appends; nil means that there is no such job, which is no error. namedBy are the
// schedules that name it: while there is one, the job stays.
func DeleteJob(cur Job, id string, namedBy []string, match Match) (*events.JobDeleted, error) {
	if err := match.Check("job", id, jobHash(cur)); err != nil {
		return nil, err
	}
	if len(namedBy) > 0 {
		return nil, Refuse(Conflict, "job '%s' is referenced by schedule '%s'; remove the schedule first", id, namedBy[0])
	}
	if cur.Saved == nil {
		return nil, nil
	}
	return &events.JobDeleted{ID: id}, nil
}

func jobHash(cur Job) string {
	if cur.Saved == nil {
		return ""
	}
	return cur.Saved.Hash
}
