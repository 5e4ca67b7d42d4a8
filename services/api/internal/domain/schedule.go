package domain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// SaveSchedule decides what storing a schedule appends; nil means that nothing changes. job is the one that it names: it
// must exist, and take the schedule's params. What is not carried out yet is refused after all that is wrong.
func SaveSchedule(
	cur Schedule, s *catalog.Schedule, job Job, source string, t catalog.SourceType, match Match,
) (*events.ScheduleSaved, error) {
	if err := match.Check("schedule", s.ID, scheduleHash(cur)); err != nil {
		return nil, err
	}
	if job.Saved == nil {
		return nil, Refuse(Invalid, "unknown job_id '%s' — register the job first (kanade job create)", s.JobID)
	}
	m, err := catalog.ParseManifestDocument(job.Saved.Document)
	if err != nil {
		return nil, fmt.Errorf("save schedule %s: job %s: %w", s.ID, s.JobID, err)
	}
	if _, err := m.Resolve(s.Params); err != nil {
		return nil, RefuseDocument(err)
	}
	if err := s.Unsupported(); err != nil {
		return nil, RefuseDocument(err)
	}
	if slices.Contains(reservedScheduleIDs(), s.ID) {
		return nil, RefuseField(Invalid, "id", "'%s' is a word of the API's paths; take another id", s.ID)
	}
	saved, err := scheduleSaved(s, source, t)
	if err != nil || cur.Saved != nil && same(cur.Saved.DocumentRevision, saved.DocumentRevision) {
		return nil, err
	}
	return saved, nil
}

// reservedScheduleIDs are what stands beside ids under /api/schedules/.
func reservedScheduleIDs() []string { return []string{"upcoming", "simulate"} }

func scheduleSaved(s *catalog.Schedule, source string, t catalog.SourceType) (*events.ScheduleSaved, error) {
	doc, err := s.Document()
	if err != nil {
		return nil, fmt.Errorf("save schedule %s: %w", s.ID, err)
	}
	if source == "" {
		source, t = string(doc), catalog.JSON
	}
	return &events.ScheduleSaved{ID: s.ID, JobID: s.JobID, Enabled: s.Enabled, DocumentRevision: events.DocumentRevision{
		Document: doc, Source: source, SourceType: string(t), Hash: catalog.Hash(doc),
	}}, nil
}

// DeleteSchedule decides what deleting a schedule appends; nil means that there is none, which is no error.
func DeleteSchedule(cur Schedule, id string, match Match) (*events.ScheduleDeleted, error) {
	if err := match.Check("schedule", id, scheduleHash(cur)); err != nil || cur.Saved == nil {
		return nil, err
	}
	return &events.ScheduleDeleted{ID: id}, nil
}

// EnableSchedule decides what switching a schedule on or off appends; nil means that it is so already. The document is
// rewritten, and so is its text.
func EnableSchedule(cur Schedule, id string, enabled bool, match Match) (*events.ScheduleSaved, error) {
	if err := match.Check("schedule", id, scheduleHash(cur)); err != nil {
		return nil, err
	}
	if cur.Saved == nil {
		return nil, Refuse(NotFound, "schedule '%s' not found", id)
	}
	s, err := catalog.ParseScheduleDocument(cur.Saved.Document)
	if err != nil {
		return nil, fmt.Errorf("enable schedule %s: %w", id, err)
	}
	if s.Enabled == enabled {
		return nil, nil
	}
	s.Enabled = enabled
	saved, err := scheduleSaved(s, enabledSource(s, cur.Saved.Source, catalog.SourceType(cur.Saved.SourceType)), catalog.YAML)
	if err != nil {
		return nil, err
	}
	saved.Switched = true
	return saved, nil
}

// enabledSource is the YAML text with its first line that begins with "enabled:" rewritten, or one appended. Where that
// does not give the document (a root in braces, a JSON text) it is empty: the document is then its own text.
func enabledSource(s *catalog.Schedule, source string, t catalog.SourceType) string {
	if t != catalog.YAML {
		return ""
	}
	line := fmt.Sprintf("enabled: %t", s.Enabled)
	lines := strings.SplitAfter(source, "\n")
	found := false
	for i, l := range lines {
		if strings.HasPrefix(l, "enabled:") {
			end := l[len(strings.TrimRight(l, "\r\n")):]
			lines[i], found = line+end, true
			break
		}
	}
	text := strings.Join(lines, "")
	if !found {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += line + "\n"
	}
	read, err := catalog.ParseSchedule([]byte(text), catalog.YAML)
	if err != nil {
		return ""
	}
	want, errWant := s.Document()
	got, errGot := read.Document()
	if errWant != nil || errGot != nil || string(want) != string(got) {
		return ""
	}
	return text
}

func scheduleHash(cur Schedule) string {
	if cur.Saved == nil {
		return ""
	}
	return cur.Saved.Hash
}

// YAMLText is a document's text as YAML: as it was sent, or made from the document where it was sent as JSON.
func YAMLText(source, sourceType, document string) (string, error) {
	if sourceType == string(catalog.YAML) {
		return source, nil
	}
	text, err := yaml.JSONToYAML([]byte(document))
	if err != nil {
		return "", fmt.Errorf("write document as YAML: %w", err)
	}
	return string(text), nil
}
