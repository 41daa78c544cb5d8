use super::*;

fn skew(codes: u64, shards: u16, configured: ShardMap) -> Skew {
    let schemes = Scheme::all(FIXED_KEY);
    let slots = count(&schemes, codes).unwrap();
    let equal = equal_shards(shards).unwrap();
    Skew { codes, key: "fixed", equal, configured, slots, neighbours: count(&schemes, NEIGHBOURS).unwrap() }
}

#[test]
fn consecutive_plain_ids_fall_on_one_of_sixteen_shards() {
    let skew = skew(1_000, 16, ShardMap::single("main"));
    assert_eq!(skew.hit(), [1, 16, 16]);
    assert!(skew.in_words().contains(
        "shards that the first 200000 consecutive ids fall on: plain counter 1 of 16, permuted counter 16 of 16, \
         hash 16 of 16"
    ));
    assert_eq!(skew.in_json()["consecutive"]["ids"], 200_000);
    assert_eq!(skew.in_json()["consecutive"]["shards_hit"]["plain counter"], 1);
}

#[test]
fn every_code_falls_on_one_shard() {
    let skew = skew(20_000, 7, ShardMap::parse(&[("a", "0-10,4095"), ("b", "11-4094")]).unwrap());
    for map in [&skew.equal, &skew.configured] {
        for slots in &skew.slots {
            assert_eq!(by_shard(map, slots).iter().sum::<u64>(), 20_000);
        }
        assert!((skew.ideal(map).iter().sum::<f64>() - 20_000.0).abs() < 1e-6);
    }
    assert_eq!(by_shard(&skew.configured, &skew.slots[0]), [20_000, 0], "the plain counter begins in slot 0");
}

#[test]
fn permuted_codes_come_close_to_the_ideal() {
    let skew = skew(100_000, 16, ShardMap::single("main"));
    let permuted = by_shard(&skew.equal, &skew.slots[1]);
    for (count, ideal) in permuted.iter().zip(skew.ideal(&skew.equal)) {
        // Five standard deviations of a fair draw.
        assert!((*count as f64 - ideal).abs() < 5.0 * ideal.sqrt(), "{count} {ideal}");
    }
    let spread = Spread::of(&permuted);
    assert!(spread.empty == 0 && spread.most_over_mean < 1.1, "{}", spread.most_over_mean);
}

#[test]
fn the_last_of_sixteen_shards_has_about_half_the_reachable_slots() {
    let equal = equal_shards(16).unwrap();
    let reachable = reachable(&equal);
    assert_eq!(reachable[..15], [248; 15]);
    assert_eq!(reachable[15], 124);
    assert!(letters_line(&equal).contains("3844 of 4096 slots, and the last shard gets 0.52 of an even share"));
    assert!(letters_line(&equal_shards(64).unwrap()).contains("the last shard gets 0.00"));
}

/// What [`reachable`] says of letters is true of real codes.
#[test]
fn no_code_falls_on_a_slot_that_counts_as_unreachable() {
    let skew = skew(300_000, 4_096, ShardMap::single("main"));
    let reachable = reachable(&skew.equal);
    for slots in &skew.slots {
        assert!(slots.iter().zip(&reachable).all(|(count, reachable)| *reachable == 1 || *count == 0));
    }
    let hit = skew.slots[1].iter().filter(|count| **count > 0).count();
    assert_eq!(hit, 3_844, "and all others are reached");
}

#[test]
fn equal_shards_differ_by_one_slot_at_most() {
    for number in [1, 2, 3, 7, 16, 100, 4_095, 4_096] {
        let map = equal_shards(number).unwrap();
        let sizes = by_shard(&map, &[1; SLOTS]);
        assert_eq!(sizes.len(), usize::from(number));
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{number}");
    }
    assert_eq!(equal_shards(16).unwrap().slots_text(15), "3840-4095");
}

#[test]
fn many_shards_are_summed_up_but_listed_in_json() {
    let skew = skew(500, 100, ShardMap::single("main"));
    assert!(skew.in_words().lines().count() < 25);
    let told = skew.in_json();
    assert_eq!(told["equal"]["schemes"][2]["codes"].as_array().unwrap().len(), 100);
    assert_eq!(told["equal"]["shards"][99]["slots"], "4055-4095");
    assert_eq!((&told["equal"]["schemes"][0]["max"], &told["equal"]["schemes"][0]["empty"]), (&json!(500), &json!(99)));
}

#[test]
fn the_same_call_gives_the_same_text() {
    let text = || skew(2_000, 16, ShardMap::single("main")).in_words();
    assert_eq!(text(), text());
}
