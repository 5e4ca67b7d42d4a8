package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

const formType = "multipart/form-data; boundary=x"

// upload is a form with a file, the boundary being x.
func upload(content string) string {
	return "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.sh\"\r\n\r\n" + content + "\r\n--x--\r\n"
}

func (s *system) upload(key, content string) answer {
	s.t.Helper()
	a := s.do(http.MethodPost, "/api/script-objects/"+key, upload(content), "Content-Type", formType)
	require.Equal(s.t, http.StatusOK, a.status, a.text())
	return a
}

const (
	toolDigest = "SHA-256=I3PoGrx0PLdu6C0Vfmsb7ej_poGfBx_vjHf60pyggkQ="
	toolHex    = "2373e81abc743cb76ee82d157e6b1bede8ffa6819f071fef8c77fad29ca08244"
	tool       = "echo from object\nexit 4\n"
)

func TestScriptObjects(t *testing.T) {
	s := newSystem(t, parts{})
	require.JSONEq(t, `[]`, s.do(http.MethodGet, "/api/script-objects", "").text())
	got := s.upload("tool/1.0", tool)
	require.JSONEq(t, `{"name":"tool","version":"1.0","size":24,"digest":"`+toolDigest+`"}`, got.text())
	require.Equal(t, `"`+toolDigest+`"`, got.header.Get("ETag"))
	s.upload("other%20one/2", "x")

	var list []map[string]any
	s.do(http.MethodGet, "/api/script-objects", "").into(t, &list)
	require.Len(t, list, 2)
	require.Equal(t, "other one", list[0]["name"], "the newest first")
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$`, list[1]["modified"])
	s.upload("tool/1.0", tool)
	var again []map[string]any
	s.do(http.MethodGet, "/api/script-objects", "").into(t, &again)
	require.Equal(t, list, again, "the same bytes are not written again")

	whole := s.do(http.MethodGet, "/api/script-objects/tool/1.0", "")
	require.Equal(t, tool, whole.text())
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Content-Length": "24",
		"Content-Disposition": `attachment; filename="tool-1.0"`, "Etag": `"` + toolDigest + `"`,
	} {
		require.Equal(t, want, whole.header.Get(name), name)
	}
	for _, x := range []struct {
		name, value string
		status      int
		body        string
	}{
		{"Range", "bytes=0-3", 206, "echo"}, {"Range", "bytes=17-", 206, "exit 4\n"}, {"Range", "bytes=-7", 206, "exit 4\n"},
		{"Range", "bytes=17-1000", 206, "exit 4\n"}, {"Range", "bytes=24-", 416, ""},
		{"If-Match", `"` + toolDigest + `"`, 200, tool}, {"If-Match", "*", 200, tool}, {"If-Match", `"other"`, 412, ""},
		{"If-None-Match", `"` + toolDigest + `"`, 304, ""}, {"If-None-Match", `"other"`, 200, tool},
	} {
		got := s.do(http.MethodGet, "/api/script-objects/tool/1.0", "", x.name, x.value)
		require.Equal(t, x.status, got.status, x.value)
		if x.body != "" {
			require.Equal(t, x.body, got.text(), x.value)
		}
	}
	require.Equal(t, "bytes */24", s.do(http.MethodGet, "/api/script-objects/tool/1.0", "", "Range", "bytes=24-").header.Get("Content-Range"))

	stale := s.do(http.MethodPost, "/api/script-objects/tool/1.0", upload("y"), "Content-Type", formType, "If-Match", `"other"`)
	require.Equal(t, http.StatusPreconditionFailed, stale.status)
	require.Equal(t, http.StatusPreconditionFailed, s.do(http.MethodDelete, "/api/script-objects/tool/1.0", "", "If-Match", `"other"`).status)
	require.Equal(t, tool, s.do(http.MethodGet, "/api/script-objects/tool/1.0", "").text())
	large := s.upload("large/1", strings.Repeat("0123456789abcdef", 4<<20/16))
	require.Contains(t, large.text(), `"size":4194304`)
}

// TestScriptObjectInUse: an exec pins the bytes of its object, and nobody takes them away from it.
func TestScriptObjectInUse(t *testing.T) {
	s := newSystem(t, parts{})
	job := func(id, object string) {
		s.write(http.MethodPost, "/api/jobs", "id: "+id+"\nversion: \"1\"\nexecute: {shell: sh, script_object: "+object+", timeout: 1s}\n", "Content-Type", yamlType)
	}
	job("obj", "tool/1.0")
	before := s.lastSeq()
	missing := s.do(http.MethodPost, "/api/exec/obj", `{"target":{"pcs":["pc-01"]}}`)
	require.Equal(t, http.StatusNotFound, missing.status)
	require.Contains(t, missing.text(), "script object 'tool/1.0' not found")
	require.Equal(t, before, s.lastSeq())

	s.upload("tool/1.0", tool)
	e := s.exec("obj", `{"target":{"pcs":["pc-01"]}}`)
	x := s.requested(e.Sequence)
	require.Equal(t, "tool/1.0", x.Script.Object)
	require.Equal(t, toolHex, x.Script.ObjectSHA256)
	require.Empty(t, x.Script.Body)

	del := func() answer { return s.do(http.MethodDelete, "/api/script-objects/tool/1.0", "") }
	named := del()
	require.Equal(t, http.StatusConflict, named.status)
	require.Contains(t, named.text(), "named by the job 'obj'")
	overwrite := func() answer {
		return s.do(http.MethodPost, "/api/script-objects/tool/1.0", upload("other"), "Content-Type", formType)
	}
	over := overwrite()
	require.Equal(t, http.StatusConflict, over.status)
	require.Contains(t, over.text(), "named by the job 'obj'")
	s.upload("tool/1.0", tool) // the same bytes harm nobody
	job("obj", "tool/2.0")
	pinned := del()
	require.Equal(t, http.StatusConflict, pinned.status)
	require.Contains(t, pinned.text(), e.ExecID)
	over = overwrite()
	require.Equal(t, http.StatusConflict, over.status)
	require.Contains(t, over.text(), e.ExecID)
	require.Equal(t, tool, s.do(http.MethodGet, "/api/script-objects/tool/1.0", "").text())
	s.plan(e.ExecID, "pc-01")
	s.append(events.ExecExpired{ExecID: e.ExecID, Outcome: events.OutcomeExpired})
	require.Equal(t, http.StatusOK, overwrite().status, "nobody comes for it any more")
	require.Equal(t, http.StatusNoContent, del().status)
	require.Equal(t, http.StatusNoContent, del().status, "it has been deleted before")
	require.Equal(t, http.StatusNotFound, s.do(http.MethodGet, "/api/script-objects/tool/1.0", "").status)
	job("obj", "tool/1.0")
	require.Equal(t, http.StatusNotFound, s.do(http.MethodPost, "/api/exec/obj", `{"target":{"pcs":["pc-01"]}}`).status, "what was deleted is not there")
}
