package receiver

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/IBM/sarama"
)

// commit sends a session's marks; sarama reports failures through the group's errors.
func (r *Receiver) commit(sess sarama.ConsumerGroupSession) {
	r.metrics.commits.Inc()
	r.committing.Store(true)
	sess.Commit()
	r.committing.Store(false)
}

// detail is an error of a partition. It holds until the partition moves on.
type detail struct {
	text string
	next int64 // the log's offset when it came
	at   time.Time
}

// sayAgain is how long the same error of a partition is not logged again.
const sayAgain = time.Minute

// hear listens to the group's errors until it is closed.
func (r *Receiver) hear(errs <-chan error) {
	for err := range errs {
		r.metrics.errors.Inc()
		committing := r.committing.Load() || ofCommit(err)
		if committing {
			r.metrics.commitFailures.Inc()
		}
		var k key
		var of *sarama.ConsumerError
		if errors.As(err, &of) {
			k, err = key{of.Topic, of.Partition}, of.Err
		}
		pos, _ := r.log.Position(k.topic, k.partition)
		is := detail{text: err.Error(), next: pos.Next, at: time.Now()}
		r.mu.Lock()
		was := r.details[k]
		said := was.text == is.text && is.at.Sub(was.at) < sayAgain
		if said {
			is.at = was.at
		}
		r.details[k] = is
		if committing && r.session != nil {
			r.session.marked.Store(true) // try again at the next interval
		}
		r.mu.Unlock()
		switch {
		case said:
		case saidOnce(err):
			r.logger.Debug("kafka error, said once for all partitions", "topic", k.topic, "partition", k.partition, "error", err)
		default:
			r.logger.Warn("kafka error", "topic", k.topic, "partition", k.partition, "committing", committing, "error", err)
		}
	}
}

// saidOnce tells errors that the watcher says, once for all partitions: no
// broker answers, or a topic is gone.
func saidOnce(err error) bool {
	var dial net.Error
	return errors.As(err, &dial) || errors.Is(err, sarama.ErrUnknownTopicOrPartition) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, sarama.ErrOutOfBrokers) || errors.Is(err, sarama.ErrNotConnected)
}

// ofCommit tells errors that only a commit can meet: a group's errors, which
// sarama reports for partitions.
func ofCommit(err error) bool {
	var of *sarama.ConsumerError
	if !errors.As(err, &of) {
		return false
	}
	for _, known := range []sarama.KError{
		sarama.ErrUnknownMemberId, sarama.ErrIllegalGeneration, sarama.ErrFencedInstancedId, sarama.ErrRebalanceInProgress,
		sarama.ErrOffsetMetadataTooLarge, sarama.ErrInvalidCommitOffsetSize, sarama.ErrGroupAuthorizationFailed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
