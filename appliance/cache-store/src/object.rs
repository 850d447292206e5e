//! A cache store over any backend of `object_store`.

use crate::folder::Folder;
use crate::{CacheStore, Listed, StoreError, StoreErrorKind, key};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// From this length on, an object goes to a remote store in parts, so that a cut connection costs a part only.
pub(crate) const MULTIPART_FROM: usize = 16 << 20;
/// Bytes in a part. S3 wants 5 MiB at least, and all parts but the last equally long; both stores take 10,000 parts.
const PART_LEN: usize = 8 << 20;
/// Parts under way at once, for one object.
const PARTS_AT_ONCE: usize = 4;

/// A [`CacheStore`] whose keys are those of an `object_store` backend.
pub(crate) struct ObjectCache {
    store: Arc<dyn ObjectStore>,
    /// Where the backend is a folder: the folder.
    folder: Option<FolderBackend>,
    description: String,
}

/// What a folder has beyond other backends.
pub(crate) struct FolderBackend {
    pub(crate) folder: Folder,
    /// The same folder, written without a flush for each object.
    pub(crate) unflushed: Arc<dyn ObjectStore>,
}

impl ObjectCache {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, folder: Option<FolderBackend>, description: String) -> Self {
        Self { store, folder, description }
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        key::check(key)?;
        Path::parse(key).map_err(|e| StoreError::new(StoreErrorKind::Other, format!("key {key}")).with_source(e))
    }

    fn failed(&self, doing: &str, key: &str) -> impl FnOnce(object_store::Error) -> StoreError {
        let context = format!("{doing} {key} in {}", self.description);
        move |e| StoreError::from_object_store(e, context)
    }

    /// For puts, which don't need an object to be there: that nothing was found speaks of the container or bucket.
    fn put_failed(&self, key: &str) -> impl FnOnce(object_store::Error) -> StoreError {
        let context = format!("putting {key} in {}", self.description);
        move |e| {
            let error = StoreError::from_object_store(e, context);
            if error.kind() == StoreErrorKind::NotFound { error.because("it must be created first") } else { error }
        }
    }

    async fn put_parts(&self, path: &Path, bytes: Bytes) -> object_store::Result<()> {
        let mut upload = self.store.put_multipart(path).await?;
        let sent = send_parts(upload.as_mut(), bytes).await;
        match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(e) => {
                // The parts of an upload that was given up cost money until the store forgets them.
                if let Err(abort) = upload.abort().await {
                    tracing::warn!(%path, error = %abort, "cache store: parts of a failed put could not be removed");
                }
                Err(e)
            }
        }
    }

    /// True where `key` holds exactly `bytes`; `None` where there is no such object.
    async fn holds(&self, key: &str, bytes: &Bytes) -> Result<Option<bool>, StoreError> {
        let Some(len) = self.head(key).await? else { return Ok(None) };
        if len != bytes.len() as u64 {
            return Ok(Some(false));
        }
        Ok(Some(self.get(key, len).await? == *bytes))
    }
}

async fn send_parts(upload: &mut dyn MultipartUpload, mut bytes: Bytes) -> object_store::Result<()> {
    let mut under_way = FuturesUnordered::new();
    while !bytes.is_empty() {
        if under_way.len() == PARTS_AT_ONCE {
            under_way.try_next().await?;
        }
        let part = bytes.split_to(bytes.len().min(PART_LEN));
        under_way.push(upload.put_part(part.into()));
    }
    under_way.try_collect().await
}

#[async_trait]
impl CacheStore for ObjectCache {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let put = match &self.folder {
            Some(folder) => folder.unflushed.put(&path, bytes.into()).await.map(drop),
            None if bytes.len() >= MULTIPART_FROM => self.put_parts(&path, bytes).await,
            None => self.store.put(&path, bytes.into()).await.map(drop),
        };
        put.map_err(self.put_failed(key)).map_err(|e| match e.kind() {
            // Overwriting needs no condition, so a conflict is another writer's or the service's own, and passes.
            StoreErrorKind::AlreadyExists => e.but(StoreErrorKind::Unavailable),
            _ => e,
        })
    }

    async fn sync(&self, keys: &[String]) -> Result<(), StoreError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        keys.iter().try_for_each(|key| key::check(key))?;
        folder.folder.sync(keys).await
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&path, bytes.clone().into(), options).await;
        let Err(error) = put.map_err(self.put_failed(key)) else { return Ok(()) };
        if error.kind() != StoreErrorKind::AlreadyExists {
            return Err(error);
        }
        match (self.holds(key, &bytes).await?, &self.folder) {
            (Some(true), Some(folder)) => folder.folder.sync_parent_of(key).await,
            (Some(true), None) => Ok(()),
            (Some(false), _) => Err(error),
            (None, _) => Err(error.but(StoreErrorKind::Unavailable)),
        }
    }

    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let found = self.store.get(&path).await.map_err(self.failed("getting", key))?;
        let len = found.meta.size;
        if len > len_max {
            return Err(StoreError::too_long(key, len, len_max, &self.description));
        }
        let bytes = found.bytes().await.map_err(self.failed("reading", key))?;
        if bytes.len() as u64 != len {
            return Err(StoreError::too_short(key, &(0..len), &self.description));
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let too_short = || StoreError::too_short(key, &range, &self.description);
        if range.start > range.end {
            return Err(too_short());
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let found = match self.store.get_opts(&path, options).await {
            Ok(found) => found,
            // A range that starts behind the end is an error of the store's own making, each with another name.
            Err(e) => match self.head(key).await? {
                Some(len) if len < range.end => return Err(too_short()),
                _ => return Err(self.failed("getting", key)(e)),
            },
        };
        if found.range != range {
            return Err(too_short());
        }
        let bytes = found.bytes().await.map_err(self.failed("reading", key))?;
        if bytes.len() as u64 != range.end - range.start { Err(too_short()) } else { Ok(bytes) }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path(key)?;
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("looking for", key)(e)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        key::check_prefix(prefix)?;
        let path = if prefix.is_empty() { None } else { Some(self.path(prefix)?) };
        let mut found = self.store.list(path.as_ref());
        let mut listed = Vec::new();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(self.failed("listing", prefix))?;
            listed.push(Listed { key: meta.location.to_string(), len: meta.size });
        }
        listed.sort_unstable();
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("deleting", key)(e)),
        }
    }

    async fn sweep_unfinished(&self, age_min: Duration) -> Result<u64, StoreError> {
        match &self.folder {
            Some(folder) => folder.folder.sweep(age_min).await,
            None => Ok(0),
        }
    }

    fn is_local(&self) -> bool {
        self.folder.is_some()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}
