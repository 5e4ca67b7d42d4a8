package catalog

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// put is a recorded write to a bucket.
type put struct {
	Bucket, Key, Text string
	JSON              json.RawMessage
}

// exchange is a recorded HTTP request with its answer.
type exchange struct {
	Request struct {
		Method, Path string
		Headers      map[string]string
		Body         json.RawMessage
	}
	Answer struct {
		Status int
		Body   json.RawMessage
	}
}

func recorded[T any](t *testing.T, file string) []T {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	var items []T
	require.NoError(t, json.Unmarshal(text, &items))
	return items
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	v := jsontext.Value(text).Clone()
	require.NoError(t, v.Compact())
	return string(v)
}

// sources pairs every recorded document with the text that followed it into the bucket of texts.
func sources(t *testing.T, bucket string, each func(t *testing.T, doc, source string)) {
	puts := recorded[put](t, "kv.json")
	pairs := 0
	for i, doc := range puts {
		if doc.Bucket != bucket || doc.JSON == nil {
			continue
		}
		for _, source := range puts[i:] {
			if source.Bucket == bucket+"_yaml" && source.Key == doc.Key {
				t.Run(doc.Key, func(t *testing.T) { each(t, compact(t, doc.JSON), source.Text) })
				pairs++
				break
			}
		}
	}
	require.Greater(t, pairs, 4)
}

func TestRecordedManifestsAreReadAndWrittenAsRecorded(t *testing.T) {
	sources(t, "jobs", func(t *testing.T, doc, source string) {
		m, err := ParseManifest([]byte(source), YAML)
		require.NoError(t, err)
		written, err := m.Document()
		require.NoError(t, err)
		require.Equal(t, doc, string(written))

		same, err := ParseManifest([]byte(doc), JSON)
		require.NoError(t, err)
		require.Equal(t, m, same)
		stored, err := ParseManifestDocument([]byte(doc))
		require.NoError(t, err)
		require.Equal(t, m, stored)
	})
}

func TestRecordedSchedulesAreReadAndWrittenAsRecorded(t *testing.T) {
	sources(t, "schedules", func(t *testing.T, doc, source string) {
		s, err := ParseSchedule([]byte(source), YAML)
		require.NoError(t, err)
		written, err := s.Document()
		require.NoError(t, err)
		require.Equal(t, doc, string(written))

		same, err := ParseSchedule([]byte(doc), JSON)
		require.NoError(t, err)
		require.Equal(t, s, same)
		stored, err := ParseScheduleDocument([]byte(doc))
		require.NoError(t, err)
		require.Equal(t, s, stored)
	})
}

func TestRecordedRequestsAreTakenOrRefusedAsRecorded(t *testing.T) {
	// What kanade 0.43.45 took and we refuse, and what it refused for a reason outside of the document.
	decidedOtherwise := map[string]string{
		`{"target":{"all":true},"rollout":{"strategy":"wave","waves":[]}}`:         "rollout.waves: must not be empty",
		`{"target":{"all":true},"bogus":1}`:                                        "bogus: unknown key, expected one of target, rollout, jitter, deadline_at, expires_after, max_failures, max_parallel, params, retry, require_targets",
		`"id: badjob\njob_id: nojob\nwhen: {per_pc: once}\ntarget: {all: true}\n"`: "",
	}
	seen := 0
	for _, x := range recorded[exchange](t, "exchanges.json") {
		var parse func(body []byte) error
		switch path := x.Request.Path; {
		case x.Request.Method != "POST":
			continue
		case path == "/api/jobs":
			parse = func(b []byte) error { _, err := ParseManifest(b, YAML); return err }
		case path == "/api/schedules":
			parse = func(b []byte) error { _, err := ParseSchedule(b, YAML); return err }
		case len(path) > 10 && path[:10] == "/api/exec/" && x.Answer.Status != 404:
			parse = func(b []byte) error { _, err := ParsePlan(b); return err }
		default:
			continue
		}
		seen++
		body := []byte(x.Request.Body)
		var text string
		if json.Unmarshal(body, &text) == nil {
			body = []byte(text)
		}
		err := parse(body)
		if message, otherwise := decidedOtherwise[compact(t, x.Request.Body)]; otherwise {
			if message != "" {
				require.EqualError(t, err, message)
			} else {
				require.NoError(t, err)
			}
			continue
		}
		require.Equal(t, x.Answer.Status == 200, err == nil, "%s: %v", body, err)
	}
	require.Greater(t, seen, 25)
}

func TestRecordedAnswersAreDocuments(t *testing.T) {
	posted := map[string]string{}
	answers := 0
	for _, x := range recorded[exchange](t, "exchanges.json") {
		path := x.Request.Path
		var text string
		if x.Request.Method == "POST" && (path == "/api/jobs" || path == "/api/schedules") && x.Answer.Status == 200 {
			require.NoError(t, json.Unmarshal(x.Request.Body, &text))
			if m, err := ParseManifest([]byte(text), YAML); err == nil {
				doc, err := m.Document()
				require.NoError(t, err)
				posted[path+m.ID] = string(doc)
			} else if s, err := ParseSchedule([]byte(text), YAML); err == nil {
				doc, err := s.Document()
				require.NoError(t, err)
				posted[path+s.ID] = string(doc)
				var answer struct{ When string }
				require.NoError(t, json.Unmarshal(x.Answer.Body, &answer))
				require.Equal(t, answer.When, s.WhenText())
			}
		}
		if x.Request.Method != "GET" || path != "/api/jobs" && path != "/api/schedules" {
			continue
		}
		var items []map[string]any
		require.NoError(t, json.Unmarshal(x.Answer.Body, &items))
		for _, item := range items {
			delete(item, "live")
			id, _ := item["id"].(string)
			text, err := json.Marshal(item)
			require.NoError(t, err)
			require.JSONEq(t, string(text), posted[path+id])
			answers++
		}
	}
	require.Greater(t, answers, 5)
}
