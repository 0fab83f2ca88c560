//! The stores that a C or Rust programmer would reach for, each set up as its documentation recommends.

use std::path::Path;

use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

/// LMDB, without a sync at every commit: no other store here has one, npcache included.
pub struct Lmdb {
    env: Env,
    table: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub fn open(path: &Path) -> Lmdb {
        std::fs::create_dir_all(path).unwrap();
        let mut options = EnvOpenOptions::new();
        // SAFETY: nothing else opens or changes this file while it is open; and it is lost in a crash, as it may.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).map_size(16 << 30).max_readers(64).open(path) }
            .unwrap();
        let mut txn = env.write_txn().unwrap();
        let table = env.create_database(&mut txn, None).unwrap();
        txn.commit().unwrap();
        Lmdb { env, table }
    }

    pub fn put(&self, key: &[u8], value: &[u8]) {
        let mut txn = self.env.write_txn().unwrap();
        self.table.put(&mut txn, key, value).unwrap();
        txn.commit().unwrap();
    }

    /// Zero-copy: the value lives as long as the read transaction.
    pub fn get<R>(&self, key: &[u8], used: impl FnOnce(&[u8]) -> R) -> R {
        let txn = self.env.read_txn().unwrap();
        used(self.table.get(&txn, key).unwrap().expect("stored"))
    }

    pub fn delete(&self, key: &[u8]) {
        let mut txn = self.env.write_txn().unwrap();
        self.table.delete(&mut txn, key).unwrap();
        txn.commit().unwrap();
    }
}

pub type Foyer = HybridCache<Vec<u8>, Vec<u8>>;

/// foyer's hybrid cache: its block engine with default configuration, as in its README, but for blocks and buffers that
/// hold the value. Written on insertion, so that a result is on disk when it is said to be stored.
pub async fn foyer(path: &Path, value: usize) -> Foyer {
    std::fs::create_dir_all(path).unwrap();
    let device = FsDeviceBuilder::new(path).with_capacity(4 << 30).build().unwrap();
    let mut engine = BlockEngineConfig::new(device);
    if value > 8 << 20 {
        engine = engine
            .with_block_size(2 * value)
            .with_buffer_pool_size(4 * value)
            .with_submit_queue_size_threshold(8 * value);
    }
    HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(2 << 30)
        .with_weighter(|key: &Vec<u8>, value: &Vec<u8>| key.len() + value.len())
        .storage()
        .with_engine_config(engine)
        .build()
        .await
        .unwrap()
}
