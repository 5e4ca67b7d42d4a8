package rest

import (
	"context"
	"net/http"

	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// groups are the groups of one endpoint as answered, and as sent by PUT.
type groups struct {
	Groups *[]string `json:"groups"`
}

func (s *server) getAgentGroups(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r, "pc_id")
	if err != nil {
		return err
	}
	list, err := s.Reader.Memberships(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, groups{&list})
}

func (s *server) putAgentGroups(w http.ResponseWriter, r *http.Request, route string) error {
	var sent groups
	return s.changeGroups(w, r, route, &sent, func(ctx context.Context, c journal.Caller, pcID string) ([]string, uint64, error) {
		if sent.Groups == nil {
			return nil, 0, domain.RefuseField(domain.Unprocessable, "groups", "missing")
		}
		return s.journal.SetGroups(ctx, c, pcID, *sent.Groups)
	})
}

func (s *server) postAgentGroup(w http.ResponseWriter, r *http.Request, route string) error {
	var sent struct {
		Group *string `json:"group"`
	}
	return s.changeGroups(w, r, route, &sent, func(ctx context.Context, c journal.Caller, pcID string) ([]string, uint64, error) {
		if sent.Group == nil {
			return nil, 0, domain.RefuseField(domain.Unprocessable, "group", "missing")
		}
		return s.journal.JoinGroup(ctx, c, pcID, *sent.Group)
	})
}

func (s *server) deleteAgentGroup(w http.ResponseWriter, r *http.Request, route string) error {
	group, err := pathValue(r, "group")
	if err != nil {
		return err
	}
	return s.changeGroups(w, r, route, nil, func(ctx context.Context, c journal.Caller, pcID string) ([]string, uint64, error) {
		return s.journal.LeaveGroup(ctx, c, pcID, group)
	})
}

// changeGroups reads the body into sent, if there is to be one, changes the membership and answers the resulting list.
func (s *server) changeGroups(
	w http.ResponseWriter, r *http.Request, route string, sent any,
	change func(context.Context, journal.Caller, string) ([]string, uint64, error),
) error {
	id, err := pathID(r, "pc_id")
	if err != nil {
		return err
	}
	var body []byte
	if sent != nil {
		if body, err = readJSONBody(w, r); err != nil {
			return err
		}
		if err := decodeJSON(body, sent); err != nil {
			return err
		}
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	list, seq, err := change(r.Context(), c, id)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, groups{&list})
}

func (s *server) listGroups(w http.ResponseWriter, r *http.Request, _ string) error {
	type group struct {
		Name    string   `json:"name"`
		Members []string `json:"members"`
		// HasConfig: a configuration scope bears the group's name. There are none yet.
		HasConfig bool `json:"has_config"`
	}
	rows, err := s.Reader.Groups(r.Context())
	if err != nil {
		return err
	}
	answer := make([]group, len(rows))
	for i, g := range rows {
		answer[i] = group{Name: g.Name, Members: g.Members}
	}
	return writeJSON(w, map[string]any{"groups": answer})
}
