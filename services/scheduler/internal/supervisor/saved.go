package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// savedName is the object of the fold; its form is part of the name, so that another version's is not read.
const savedName = "fold-v7"

// readTimeout bounds the reading of the saved fold.
const readTimeout = 30 * time.Second

// load takes the saved fold over, if there is one that can be read and fits the log.
func (s *Supervisor) load(ctx context.Context) error {
	state, err := s.read(ctx)
	switch {
	case errors.Is(err, bus.ErrUnavailable):
		return err
	case errors.Is(err, bus.ErrNotFound):
		return nil
	case err != nil:
		s.logger.Warn("the saved fold can't be read; folding the log from the beginning", "error", err)
		return nil
	}
	fits, err := s.fits(ctx, state)
	if err != nil {
		return err
	}
	if !fits {
		s.logger.Warn("the saved fold is of another log; folding this one from the beginning", "sequence", state.Position)
		return nil
	}
	s.mu.Lock()
	s.state, s.saved = state, state.Position
	s.mu.Unlock()
	return nil
}

func (s *Supervisor) read(ctx context.Context) (*domain.State, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	object, err := s.bus.GetObject(ctx, events.StoreSchedulerState, savedName, math.MaxInt)
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("read fold: %w", err)
	}
	defer dec.Close()
	data, err := dec.DecodeAll(object.Data, nil)
	if err != nil {
		return nil, fmt.Errorf("read fold: %w", err)
	}
	return domain.Load(data, s.retain)
}

// fits reports whether the saved fold is of the log that is there. A log that was recreated or restored may have reached
// the fold's position again with other facts; one whose fact at that position has gone by housekeeping fits.
func (s *Supervisor) fits(ctx context.Context, state *domain.State) (bool, error) {
	last, err := s.bus.LastSeq(ctx, events.StreamLog)
	if err != nil || last < state.Position {
		return false, err
	}
	return s.bus.StoredAt(ctx, events.StreamLog, state.Position, state.At)
}

// saves saves the fold from time to time, and once more at the end.
func (s *Supervisor) saves(ctx context.Context) error {
	for wait(ctx, saveEvery) == nil {
		s.save(ctx, saveFacts)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if s.bus.Connected() {
		s.save(last, 1)
	}
	return nil
}

// save stores the fold if it is at least some facts beyond the one that is stored. Of two that save at once one does.
func (s *Supervisor) save(ctx context.Context, facts uint64) {
	s.mu.RLock()
	position := s.state.Position
	var data []byte
	var err error
	if position >= s.saved+facts {
		data, err = json.Marshal(s.state)
	}
	s.mu.RUnlock()
	if data == nil && err == nil {
		return
	}
	if err == nil {
		err = s.write(ctx, data)
	}
	if errors.Is(err, bus.ErrConflict) {
		return
	}
	if err != nil {
		s.logger.Warn("save the fold; the next start folds more of the log", "sequence", position, "error", err)
		return
	}
	s.mu.Lock()
	s.saved = position
	s.mu.Unlock()
}

func (s *Supervisor) write(ctx context.Context, data []byte) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	return s.bus.PutObject(ctx, events.StoreSchedulerState, savedName, bytes.NewReader(enc.EncodeAll(data, nil)))
}
