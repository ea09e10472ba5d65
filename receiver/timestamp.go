package receiver

import (
	"math"
	"math/big"
	"time"
)

// Sarama decodes a record's timestamp as time.Duration(delta ms) × 10⁶ ns onto
// the batch's first timestamp, and that product wraps modulo 2⁶⁴ ns (584 years).
// 2⁶⁴ is not a multiple of 10⁶, so a wrapped value has nanoseconds below the
// millisecond that no true one has, and they tell how often it wrapped: each
// turn takes wrapResidue ns (mod 10⁶) away. As both numbers share the factor
// 64, the count is known modulo 15625 turns; of the candidates the nearest to 0
// is taken, which is exact to 4.5 million years from the batch's first record.
const (
	wrapResidue = (1 << 64) % nanosPerMilli // 551616
	wrapFactor  = 64                        // gcd(wrapResidue, nanosPerMilli)
	wrapPeriod  = nanosPerMilli / wrapFactor

	nanosPerMilli = 1_000_000

	// earliestUnix, in seconds, is the earliest that a delta of sarama's reaches
	// from a first timestamp at or after 1970; the zero time and all that a
	// delta reaches from there lie far below.
	earliestUnix = math.MinInt64/1_000_000_000 - 1

	// noTimestamp is Kafka's "this record has none".
	noTimestamp = -1
)

// timestampMillis gives the timestamp that the broker keeps, in milliseconds
// since the Unix epoch, from what sarama made of it.
//
// Sarama reads a negative first timestamp of a batch as the zero time. Kafka
// gives a batch of records without timestamps the first timestamp -1, so that
// is what the zero time is taken for; other negative ones are lost in sarama.
func timestampMillis(t time.Time) int64 {
	if t.IsZero() {
		return noTimestamp
	}
	sub := int64(t.Nanosecond() % nanosPerMilli)
	if sub == 0 && t.Unix() >= earliestUnix {
		return t.UnixMilli()
	}
	return unwrapMillis(t, sub)
}

// unwrapMillis handles what no sane producer sends. It is apart so that the
// common way stays small.
func unwrapMillis(t time.Time, sub int64) int64 {
	turns := wrapTurns(sub)
	var origin int64
	if t.Unix() < earliestUnix {
		t = time.Unix(0, 0).Add(t.Sub(time.Time{}))
		origin = noTimestamp
	}
	// ms = origin + (t + turns × 2⁶⁴ ns) / 10⁶, beyond 64 bits on the way.
	ns := new(big.Int).Mul(big.NewInt(t.Unix()), big.NewInt(int64(time.Second)))
	ns.Add(ns, big.NewInt(int64(t.Nanosecond())))
	turn := new(big.Int).Lsh(big.NewInt(1), 64)
	ns.Add(ns, turn.Mul(turn, big.NewInt(turns)))
	ms := ns.Div(ns, big.NewInt(nanosPerMilli)) // exact: the remainder is what turns undid
	if !ms.IsInt64() {
		return t.UnixMilli()
	}
	return origin + ms.Int64()
}

// wrapTurns solves sub + turns × wrapResidue ≡ 0 (mod 10⁶) for the turns nearest to 0.
func wrapTurns(sub int64) int64 {
	if sub%wrapFactor != 0 {
		return 0 // not made by wrapping
	}
	inverse := new(big.Int).ModInverse(big.NewInt(wrapResidue/wrapFactor), big.NewInt(wrapPeriod)).Int64()
	turns := (wrapPeriod - sub/wrapFactor%wrapPeriod) % wrapPeriod * inverse % wrapPeriod
	if turns > wrapPeriod/2 {
		turns -= wrapPeriod
	}
	return turns
}
